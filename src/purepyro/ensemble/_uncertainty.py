"""What a mixture of equally likely members says, and how unsure it is: by members and by noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Prediction(NamedTuple):
    r"""The mean of a mixture and its variance, in two parts.

    Over the members and draws $i$, with mean $\mu_i$ and variance $\sigma_i^2$:

    $$m = \mathbb{E}_i[\mu_i], \qquad
    \mathrm{Var}[y] = \underbrace{\mathrm{Var}_i[\mu_i]}_{\text{epistemic}}
    + \underbrace{\mathbb{E}_i[\sigma_i^2]}_{\text{aleatoric}}$$

    Attributes:
        mean: The mean of the mixture.
        epistemic: The variance of the members' means: what more data would take away.
        aleatoric: The mean of their variances: noise that stays.

    Source: Lakshminarayanan et al. 2017, section 2.4; Depeweg et al. 2018, "Decomposition of
    Uncertainty in Bayesian Deep Learning"; the law of total variance.

    Examples:
        >>> import torch
        >>> from purepyro.ensemble import Prediction
        >>> prediction = Prediction(torch.zeros(2), torch.ones(2), torch.ones(2))
        >>> prediction.variance
        tensor([2., 2.])
    """

    mean: Tensor
    epistemic: Tensor
    aleatoric: Tensor

    @property
    def variance(self) -> Tensor:
        """The variance of the mixture, the sum of both parts."""
        return self.epistemic + self.aleatoric


class ClassPrediction(NamedTuple):
    r"""The class probabilities of a mixture and its entropy, in two parts, in nats.

    Over the members and draws $i$, with probabilities $p_i$:

    $$\bar p = \mathbb{E}_i[p_i], \qquad
    \mathrm{H}[\bar p] = \underbrace{\mathrm{H}[\bar p] - \mathbb{E}_i \mathrm{H}[p_i]}
    _{\text{epistemic}} + \underbrace{\mathbb{E}_i \mathrm{H}[p_i]}_{\text{aleatoric}}$$

    Attributes:
        probs: The probabilities of the mixture, classes last.
        epistemic: The mutual information of label and member: how much the members disagree.
        aleatoric: The mean of their entropies: how unsure each is by itself.

    Source: Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference
    Learning" (BALD); Depeweg et al. 2018.

    Examples:
        >>> import torch
        >>> from purepyro.ensemble import ClassPrediction
        >>> probs = torch.tensor([[0.5, 0.5]])
        >>> ClassPrediction(probs, torch.tensor([0.6931]), torch.tensor([0.0])).entropy
        tensor([0.6931])
    """

    probs: Tensor
    epistemic: Tensor
    aleatoric: Tensor

    @property
    def entropy(self) -> Tensor:
        """The entropy of the mixture, the sum of both parts."""
        return self.epistemic + self.aleatoric


def of_moments(means: Tensor, variances: Tensor) -> Prediction:
    """The moments of a mixture, from those of its parts along the first dimension."""
    return Prediction(means.mean(0), means.var(0, correction=0), variances.mean(0))


def of_probabilities(probs: Tensor) -> ClassPrediction:
    """The class probabilities and entropy of a mixture, from those of its parts; classes last."""
    mixed = probs.mean(0)
    aleatoric = _entropy(probs).mean(0)
    # Rounding alone makes it negative.
    return ClassPrediction(mixed, (_entropy(mixed) - aleatoric).clamp(min=0.0), aleatoric)


def of_log_densities(log_densities: Tensor) -> Tensor:
    """Minus the log density of a mixture, from those of its parts along the first dimension."""
    return math.log(len(log_densities)) - log_densities.logsumexp(0)


def _entropy(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(-1)
