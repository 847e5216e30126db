"""Draws as ArviZ wants them, for its diagnostics, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

from ..._core._types import Values
from ..._errors import ShapeError

InferenceData: TypeAlias = Any
"""ArviZ's own container: ``InferenceData`` of ArviZ 0.x, xarray's ``DataTree`` of 1.x."""

# Groups whose draws belong together, one by one.
_TOGETHER = (
    ("posterior", "posterior_predictive", "log_likelihood"),
    ("prior", "prior_predictive"),
    ("predictions",),
)


def to_inference_data(
    *,
    posterior: Values | None = None,
    posterior_predictive: Values | None = None,
    log_likelihood: Values | None = None,
    predictions: Values | None = None,
    prior: Values | None = None,
    prior_predictive: Values | None = None,
    observed_data: Values | None = None,
    constant_data: Values | None = None,
    coords: Mapping[str, Sequence[object]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> InferenceData:
    """The draws as ArviZ's container, in one chain; groups that are not given are left out.

    ArviZ is an extra: ``pip install 'purepyro[arviz]'``.

    Args:
        posterior: Draws of latent and deterministic sites, each of shape ``(num_samples, ...)``.
        posterior_predictive: Draws of the data, at the data's own inputs.
        log_likelihood: What ``LogLikelihood`` returns.
        predictions: Draws of data at new inputs.
        prior: Draws of latent and deterministic sites from the prior.
        prior_predictive: Draws of the data from the prior.
        observed_data: The data, without a dimension of draws.
        constant_data: The inputs, likewise.
        coords: Labels by the name of a dimension.
        dims: Names of a site's own dimensions; by default ArviZ makes them up.

    Returns:
        ``arviz.InferenceData`` under ArviZ 0.x, ``xarray.DataTree`` under 1.x.

    Raises:
        ImportError: if ArviZ is not installed.
        ShapeError: if groups that belong together differ in their number of draws.

    Source: ``arviz.from_dict``.

    Examples:
        >>> import torch
        >>> from purepyro.infer import to_inference_data
        >>> data = to_inference_data(posterior={"slope": torch.zeros(100, 2)})  # doctest: +SKIP
        >>> data.posterior["slope"].shape  # doctest: +SKIP
        (1, 100, 2)
    """
    draws = {
        "posterior": posterior,
        "posterior_predictive": posterior_predictive,
        "log_likelihood": log_likelihood,
        "predictions": predictions,
        "prior": prior,
        "prior_predictive": prior_predictive,
    }
    data = {"observed_data": observed_data, "constant_data": constant_data}
    given = {group: values for group, values in draws.items() if values is not None}
    _check_draws(given)
    groups = {
        group: {name: value.detach().cpu().numpy()[None] for name, value in values.items()}
        for group, values in given.items()
    } | {
        group: {name: value.detach().cpu().numpy() for name, value in values.items()}
        for group, values in data.items()
        if values is not None
    }
    arviz = import_arviz()
    named = {"coords": _plain(coords), "dims": _plain(dims)}
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.from_dict(**groups, **named)
    return arviz.from_dict(groups, **named)


def _check_draws(groups: Mapping[str, Values]) -> None:
    for family in _TOGETHER:
        sizes = {
            f"{group} {name!r}": value.shape[0] if value.ndim else 0
            for group in family
            for name, value in groups.get(group, {}).items()
        }
        if len(set(sizes.values())) > 1 or 0 in sizes.values():
            found = ", ".join(f"{name}: {size}" for name, size in sizes.items())
            raise ShapeError(
                f"to_inference_data got different numbers of draws, or none ({found}), but ArviZ "
                "takes draw number i of all of these together. The first dimension of each has to "
                "be the draws, from the same posterior samples."
            )


def import_arviz() -> ModuleType:
    """ArviZ, which is an extra."""
    # By name, so that who does not export pays nothing for ArviZ, which need not be there.
    try:
        return import_module("arviz")
    except ModuleNotFoundError as error:
        if error.name != "arviz":
            raise
        raise ImportError(
            "to_inference_data needs ArviZ, which is not installed here. "
            "Run: pip install 'purepyro[arviz]'"
        ) from None


def _plain(names: Mapping[str, Sequence[object]] | None) -> dict[str, list[object]] | None:
    return None if names is None else {name: list(values) for name, values in names.items()}
