"""The joint normal guide with a full covariance."""

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


class AutoMultivariateNormal(JointGuide[P]):
    r"""A guide that is one normal vector with a full covariance, in unconstrained space.

    .. math:: z = T(\mu + \mathrm{diag}(\sigma) L\,\epsilon), \quad \epsilon \sim N(0, I)

    Parameters are ``locs.<site>``; ``auto_scale``, the positive :math:`\sigma`; and
    ``auto_scale_tril``, the lower triangular :math:`L` with ones on its diagonal. The last two are
    in the order of the sites.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions.
        init_scale: The standard deviation to start from, in unconstrained space.

    Raises:
        DeclarationError: if the model has no latent site, a discrete one, one whose support moves,
            or one in a subsampled plate.

    Source: ``pyro.infer.autoguide.AutoMultivariateNormal``, whose ``loc`` is our ``locs`` end to
    end.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoMultivariateNormal
        >>> def model():
        ...     pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        >>> params = init(AutoMultivariateNormal(model), random.key(0))
        >>> {name: list(value.shape) for name, value in params.items()}
        {'locs.weights': [2], 'auto_scale': [2], 'auto_scale_tril': [2, 2]}
    """

    needs_no_mode: ClassVar[bool] = True

    init_scale: float = static(default=0.1)

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        loc, scale_tril = self._loc_tril(latents, start)
        # The parameters' constraints hold what validation would check.
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        loc, scale_tril = self._loc_tril(latents, start)
        return loc, scale_tril.square().sum(-1).sqrt()

    def _loc_tril(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        loc = self.loc(latents, start)
        scales = torch.full_like(loc, self.init_scale)
        eye = torch.eye(len(loc), dtype=loc.dtype, device=loc.device)
        scale = self.param(
            "auto_scale", lambda: scales, scales, constraint=constraints.softplus_positive
        )
        tril = self.param(
            "auto_scale_tril", lambda: eye, eye, constraint=constraints.unit_lower_cholesky
        )
        return loc, scale.unsqueeze(-1) * tril
