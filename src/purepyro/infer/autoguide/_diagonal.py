"""The joint normal guide with a diagonal covariance."""

from __future__ import annotations

from typing import ClassVar, ParamSpec

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..._declare._fields import static
from ._init_locs import Start
from ._joint_guide import JointGuide
from ._latents import Latent

P = ParamSpec("P")


class AutoDiagonalNormal(JointGuide[P]):
    r"""A guide that is one normal vector with independent numbers, in unconstrained space.

    .. math:: z = T(\mu + \sigma\,\epsilon), \quad \epsilon \sim N(0, I)

    The law is that of :class:`AutoNormal`, with one auxiliary site for all. Parameters are
    ``locs.<site>`` and ``auto_scale``, one number for each of theirs, in the order of the sites.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        init_scale: The standard deviation to start from, in unconstrained space.

    Raises:
        DeclarationError: if the model has no latent site, a discrete one, one whose support moves,
            or one in a subsampled plate.

    Source: ``pyro.infer.autoguide.AutoDiagonalNormal``, whose ``loc`` is our ``locs`` end to end.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import constrain, init, random
        >>> from purepyro.infer import AutoDiagonalNormal
        >>> def model():
        ...     pyro.sample("a", dist.Normal(0.0, 1.0))
        ...     pyro.sample("b", dist.HalfNormal(1.0))
        >>> guide = AutoDiagonalNormal(model)
        >>> constrain(guide, init(guide, random.key(0)))
        {'locs.a': tensor(0.), 'locs.b': tensor(0.), 'auto_scale': tensor([0.1000, 0.1000])}
    """

    needs_no_mode: ClassVar[bool] = True

    init_scale: float = static(default=0.1)

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        return dist.Normal(*self.marginals(latents, start)).to_event(1)

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        loc = self.loc(latents, start)
        scale = torch.full_like(loc, self.init_scale)
        positive = constraints.softplus_positive
        return loc, self.param("auto_scale", lambda: scale, scale, constraint=positive)
