"""Log densities that ask no tensor for its values, of distributions whose own do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.utils import broadcast_all


class Multinomial(dist.Multinomial):
    """Torch's writes through a mask, whose size under ``vmap`` is not one number."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of counts; a category of probability zero and no count adds nothing."""
        logits, counts = broadcast_all(self.logits, value)
        logits = torch.where((counts == 0) & (logits == -math.inf), 0.0, logits)
        ways = torch.lgamma(counts.sum(-1) + 1) - torch.lgamma(counts + 1).sum(-1)
        density: Tensor = ways + (logits * counts).sum(-1)
        return density


class NanMaskedNormal(dist.NanMaskedNormal):
    """Pyro's selects the elements that are there."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of the elements that are there, zero for the others."""
        there = value.isfinite()
        deviation = torch.where(there, (value - self.loc) / self.scale, 0.0)
        density = -(deviation**2) / 2 - self.scale.log() - math.log(2 * math.pi) / 2
        return torch.where(there, density, 0.0)


class NanMaskedMultivariateNormal(dist.NanMaskedMultivariateNormal):
    """Pyro's goes through the patterns of missing elements."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of the elements that are there, the others integrated out.

        In place of those stand independent standard normal numbers at their mean, whose share of
        the density is known.
        """
        there = value.isfinite()
        deviation = torch.where(there, value - self.loc, 0.0)
        both = there.unsqueeze(-1) & there.unsqueeze(-2)
        size = value.shape[-1]
        eye = torch.eye(size, dtype=value.dtype, device=value.device)
        factor = torch.linalg.cholesky(torch.where(both, self.covariance_matrix, eye))
        white = torch.linalg.solve_triangular(factor, deviation.unsqueeze(-1), upper=False)
        spread = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = there.sum(-1) * (math.log(2 * math.pi) / 2)
        density: Tensor = -white.square().sum((-2, -1)) / 2 - spread - constant
        return density


PURE: Mapping[type, type] = MappingProxyType(
    {
        dist.Multinomial: Multinomial,
        torch.distributions.Multinomial: Multinomial,
        dist.NanMaskedNormal: NanMaskedNormal,
        dist.NanMaskedMultivariateNormal: NanMaskedMultivariateNormal,
    }
)
"""What a distribution becomes where its values cannot be looked at."""

for _own, _pure in PURE.items():
    _pure.__name__ = _own.__name__
