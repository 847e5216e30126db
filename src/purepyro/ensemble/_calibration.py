"""How far predicted probabilities are from observed frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from .._compat._functorch import plain
from .._core._whole_numbers import whole
from .._errors import DtypeError, ShapeError, SupportError, describe


def calibration_error(probs: Tensor, labels: Tensor, num_bins: int = 15) -> Tensor:
    r"""The expected calibration error of class probabilities (ECE).

    Rows go by their confidence, the largest probability, into bins of equal width
    :math:`((b - 1)/B, b/B]`. With :math:`n_b` of :math:`n` rows in bin :math:`b`, of which the
    share :math:`\mathrm{acc}_b` is right, at a mean confidence :math:`\mathrm{conf}_b`:

    .. math:: \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{n}
        \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    Args:
        probs: Of shape ``(rows, classes)``, such as those of
            :meth:`EnsemblePredictive.predict_proba`.
        labels: The true classes, integers of shape ``(rows,)``.
        num_bins: How many bins.

    Raises:
        ShapeError: if there are no rows, or the shapes do not match.
        DtypeError: if the labels are no integers.
        SupportError: if a label is no class, or a row no probabilities.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Example:
        >>> import torch
        >>> from purepyro.ensemble import calibration_error
        >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
        >>> calibration_error(probs, torch.tensor([0, 0]))  # right in 1/2, sure of 3/4
        tensor(0.2500)
    """
    _check_bins(num_bins, "num_bins")
    _check_classes(probs, labels)
    confidence, predicted = probs.max(dim=-1)
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    inside = bins[:, None] == torch.arange(num_bins, device=bins.device)
    gaps = (predicted == labels).to(probs) - confidence
    # A bin's share times its gap is the sum of its rows' gaps, over all rows.
    return (inside * gaps[:, None]).sum(0).abs().sum() / len(probs)


def coverage(cdf: Tensor, levels: Tensor) -> Tensor:
    r"""How often data lie below the quantiles of their predictions.

    .. math:: \hat p_j = \frac{1}{n} \left| \{ t : F_t(y_t) \le p_j \} \right|

    Predictions are calibrated if it is :math:`p_j`; plotted against it, it is the reliability
    diagram of a regression.

    Args:
        cdf: The predicted distribution functions at the data, such as
            :meth:`EnsemblePredictive.cdf` returns them; of any shape.
        levels: The probabilities :math:`p_j`, of shape ``(levels,)``.

    Raises:
        ShapeError: if there are no rows, or the levels are not in one dimension.
        SupportError: if a number is no probability.

    Source: Kuleshov et al. 2018, "Accurate Uncertainties for Deep Learning Using Calibrated
    Regression".

    Example:
        >>> import torch
        >>> from purepyro.ensemble import coverage
        >>> coverage(torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.tensor([0.25, 0.5]))
        tensor([0.2500, 0.5000])
    """
    if not cdf.numel():
        raise _no_rows("cdf", cdf)
    if levels.ndim != 1:
        raise ShapeError(
            f"levels is {describe(levels)}, and there is one coverage for each. Give them in one "
            "dimension, such as torch.tensor([0.5, 0.9])."
        )
    _check_probabilities(cdf, "cdf")
    _check_probabilities(levels, "levels")
    return (cdf.flatten()[:, None] <= levels.to(cdf)).to(cdf).mean(0)


def quantile_calibration_error(cdf: Tensor, num_levels: int = 9) -> Tensor:
    r"""The calibration error of a regression, at the levels :math:`p_j = j / (m + 1)`.

    .. math:: \frac{1}{m} \sum_{j=1}^{m} (\hat p_j - p_j)^2

    Args:
        cdf: As for :func:`coverage`, which gives the :math:`\hat p_j`.
        num_levels: The number :math:`m` of levels, at equal distances.

    Raises:
        ShapeError: if there are no rows.
        SupportError: if a number of ``cdf`` is no probability.

    Source: Kuleshov et al. 2018, equation 9, with equal weights.

    Example:
        >>> import torch
        >>> from purepyro.ensemble import quantile_calibration_error
        >>> quantile_calibration_error(torch.tensor([0.5, 0.5]), num_levels=3)  # 0, 1, 1
        tensor(0.1250)
    """
    _check_bins(num_levels, "num_levels")
    levels = torch.arange(1, num_levels + 1, device=cdf.device).to(cdf) / (num_levels + 1)
    return (coverage(cdf, levels) - levels).square().mean()


def _check_bins(count: int, name: str) -> None:
    if whole(count, 1) is None:
        raise ShapeError(
            f"{name} is {describe(count)}, so there would be nothing to compare. Give a whole "
            f"number {name} >= 1."
        )


def _check_classes(probs: Tensor, labels: Tensor) -> None:
    if probs.ndim != 2 or labels.shape != probs.shape[:1]:
        raise ShapeError(
            f"probs is {describe(probs)} and labels {describe(labels)}, so rows and classes do not "
            "fit. Give probabilities (rows, classes) and labels (rows,); of one probability p for "
            "each row make torch.stack([1 - p, p], dim=-1)."
        )
    if not len(probs):
        raise _no_rows("probs", probs)
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype is torch.bool:
        raise DtypeError(
            f"labels is {describe(labels)}, but a label is the number of a class. Write "
            "labels.long()."
        )
    _check_probabilities(probs, "probs")
    seen, sums = plain(labels), plain(probs.sum(-1))
    if seen is not None and not bool(((seen >= 0) & (seen < probs.shape[-1])).all()):
        raise SupportError(
            f"labels go from {int(seen.min())} to {int(seen.max())}, but the {probs.shape[-1]} "
            f"classes are 0 to {probs.shape[-1] - 1}. Number the classes from 0."
        )
    if sums is not None and not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise SupportError(
            f"The rows of probs sum to {sums.min().item():.4g} to {sums.max().item():.4g}, so they "
            "are no probabilities of classes. Of logits make logits.softmax(-1)."
        )


def _check_probabilities(values: Tensor, name: str) -> None:
    seen = plain(values)
    if seen is not None and not bool(((seen >= 0) & (seen <= 1 + 1e-6)).all()):
        raise SupportError(
            f"{name} has numbers that are no probabilities, from {seen.min().item():.4g} to "
            f"{seen.max().item():.4g}. Give numbers from 0 to 1."
        )


def _no_rows(name: str, value: Tensor) -> ShapeError:
    return ShapeError(
        f"{name} is {describe(value)}, without rows, so there are no frequencies to compare with. "
        "Pass data."
    )
