"""The joint normal guide with a covariance of low rank and a diagonal."""

from __future__ import annotations

from typing import ClassVar, ParamSpec

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..._declare._fields import static
from ...random import name_key, normal
from ._init_locs import Start
from ._joint_guide import JointGuide
from ._latents import Latent

P = ParamSpec("P")


class AutoLowRankMultivariateNormal(JointGuide[P]):
    r"""A guide that is one normal vector with a covariance of low rank, and a diagonal.

    .. math:: z = T(u), \quad u \sim N(\mu, S (F F^\top + I) S), \quad S = \mathrm{diag}(\sigma)

    Parameters are ``locs.<site>``; ``auto_scale``, the positive :math:`\sigma`; and
    ``auto_cov_factor``, the :math:`F`, which starts from draws of the key. The last two are in the
    order of the sites.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        init_scale: About the standard deviation to start from, in unconstrained space.
        rank: The columns of :math:`F`; by default the square root of its rows, rounded.

    Raises:
        DeclarationError: if the model has no latent site, a discrete one, one whose support moves,
            or one in a subsampled plate.

    Source: ``pyro.infer.autoguide.AutoLowRankMultivariateNormal``, whose ``loc`` is our ``locs``
    end to end.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoLowRankMultivariateNormal
        >>> def model():
        ...     pyro.sample("z", dist.Normal(torch.zeros(9), 1.0).to_event(1))
        >>> params = init(AutoLowRankMultivariateNormal(model), random.key(0))
        >>> {name: list(value.shape) for name, value in params.items()}
        {'locs.z': [9], 'auto_scale': [9], 'auto_cov_factor': [9, 3]}
    """

    needs_no_mode: ClassVar[bool] = True

    init_scale: float = static(default=0.1)
    rank: int | None = static(default=None)

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        loc, scale, factor = self._parts(latents, start)
        # The parameters' constraints hold what validation would check.
        return dist.LowRankMultivariateNormal(
            loc, factor * scale.unsqueeze(-1), scale.square(), validate_args=False
        )

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        loc, scale, factor = self._parts(latents, start)
        return loc, scale * (factor.square().sum(-1) + 1).sqrt()

    def _parts(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor, Tensor]:
        loc = self.loc(latents, start)
        rank = round(len(loc) ** 0.5) if self.rank is None else self.rank
        scales = torch.full_like(loc, 0.5**0.5 * self.init_scale)
        scale = self.param(
            "auto_scale", lambda: scales, scales, constraint=constraints.softplus_positive
        )

        def draws() -> Tensor:
            shape, key = (len(loc), rank), name_key(start.key, "auto_cov_factor")
            return normal(key, shape, std=rank**-0.5, dtype=loc.dtype)

        return loc, scale, self.param("auto_cov_factor", draws, loc.new_zeros(len(loc), rank))
