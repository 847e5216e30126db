"""The Laplace approximation: a normal law at the mode, as wide as the curvature says."""

from __future__ import annotations

from typing import ClassVar, ParamSpec

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import transform_to

from ..._compat._functorch import plain
from ..._compat._isolation import intact
from ..._core._types import Params, Values
from ..._declare._fields import static
from ..._errors import SupportError
from ..._run._apply import record
from ..._run._execute import Call, Setting, execute, jointly
from ...random import key
from ._init_locs import Start
from ._initialization import Initializer, init_to_median
from ._joint_guide import JointGuide, parts_of
from ._latents import Latent
from ._model_guide import PlatesOfRun, pushed
from ._multivariate import AutoMultivariateNormal

P = ParamSpec("P")


class AutoLaplaceApproximation(JointGuide[P]):
    r"""A guide that is a point in unconstrained space, and becomes a normal law after the fit.

    .. math:: u^* = \arg\max_u \log p(x, T(u)) + \log |T'(u)|, \quad
        u \sim N(u^*, (-\nabla^2)^{-1})

    Fit it as any guide, which finds :math:`u^*`; then :meth:`laplace_approximation` returns the
    normal law. Parameters are ``locs.<site>``.

    Args:
        model: The model whose latent sites to fit.
        init_loc_fn: Where each site starts, one of the ``init_to_...`` functions. By default at the
            median of draws from the prior: a network with all weights at zero would stay there.

    Raises:
        DeclarationError: if the model has no latent site, a discrete one, one whose support moves,
            or one in a subsampled plate.

    Source: ``pyro.infer.autoguide.AutoLaplaceApproximation``, whose ``loc`` is our ``locs`` end to
    end.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import init, random
        >>> from purepyro.infer import AutoLaplaceApproximation, init_to_feasible
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 2.0))
        >>> guide = AutoLaplaceApproximation(model, init_to_feasible)  # at the mode already
        >>> normal, params = guide.laplace_approximation(init(guide, random.key(0)))
        >>> normal.quantiles(params, [0.8413])["z"]  # one standard deviation
        tensor([1.9996])
    """

    needs_no_mode: ClassVar[bool] = True

    init_loc_fn: Initializer = static(default=init_to_median)

    def posterior(self, latents: list[Latent], start: Start) -> TorchDistributionMixin:
        return dist.Delta(self.loc(latents, start), event_dim=1)

    def marginals(self, latents: list[Latent], start: Start) -> tuple[Tensor, Tensor]:
        loc = self.loc(latents, start)
        return loc, torch.zeros_like(loc)

    def spare(self, z: Tensor) -> Tensor:
        return -0.5 * z.square()  # with no constant: the loss is the density's

    @intact
    def laplace_approximation(
        self, params: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[AutoMultivariateNormal[P], Params]:
        """The normal law at the fitted point, as a guide and its parameters.

        Args:
            params: Unconstrained parameters of model and guide, such as ``state.params`` of SVI.
            *args: The model's arguments.
            **kwargs: The same, by name.

        Returns:
            The guide, and its parameters alone; ``{**params, **these}`` has the model's too.

        Raises:
            SupportError: if the log density is not curved downwards in all directions there.
        """
        fitted = execute(self._fitted, key(0), args, kwargs, Setting(params=params))
        latents, plates, point = fitted.result

        def potential(flat: Tensor) -> Tensor:
            laws = {
                latent.name: pushed(latent, plates.ordered(latent, z, dims), self.spare)
                for latent, z in parts_of(flat, latents)
                for dims in [latent.unconstrained_event_dim]
            }
            values = {name: law.v for name, law in laws.items()}
            setting = Setting(params=params, values=values, draws=False)
            density = jointly(
                (self.model,),
                Call(key(0), args, kwargs, params),
                lambda joint: (
                    record(
                        execute(self.model, key(0), args, kwargs, setting, joint).sites
                    ).log_density
                ),
            )
            jacobian = sum((law.log_density.sum() for law in laws.values()), torch.zeros(()))
            return jacobian - density

        # Not torch.func.hessian: its forward mode makes float64 of 0-d tensors times numbers.
        curvature = torch.func.jacrev(torch.func.grad(potential))(point)
        tril = _root_of_inverse(curvature)
        scale = tril.diagonal(dim1=-2, dim2=-1)
        found = {
            "auto_scale": transform_to(constraints.softplus_positive).inv(scale),
            "auto_scale_tril": tril / scale.unsqueeze(-1),
        }
        own = {f"locs.{latent.name}" for latent in latents}
        locs = {name: value for name, value in params.items() if name in own}
        return AutoMultivariateNormal(self.model, self.init_loc_fn), {**locs, **found}

    def _fitted(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[list[Latent], PlatesOfRun, Tensor]:
        """The sites, their plates and the fitted point, in a run."""
        latents, plates, start = self.look(args, kwargs)
        self.check(latents)
        return latents, plates, self.loc(latents, start).detach()


def _root_of_inverse(precision: Tensor) -> Tensor:
    """The lower triangular ``L`` with ``L @ L.mT`` the inverse of ``precision``."""
    # The Cholesky factor of the flipped matrix is, flipped back, an upper one of the matrix.
    flipped, info = torch.linalg.cholesky_ex(precision.flip(-2, -1))
    seen = plain(info)
    if seen is not None and bool(seen != 0):
        raise SupportError(
            f"The log density is not curved downwards in all of the {precision.shape[-1]} "
            "directions at the params, so they are at no maximum and no normal law fits there. "
            "Fit the guide first, with more steps or another init_loc_fn; a model whose density "
            "has no maximum (a site that no datum informs, a flat prior) has no such "
            "approximation."
        )
    eye = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    root: Tensor = torch.linalg.solve_triangular(flipped.flip(-2, -1).mT, eye, upper=False)
    return root
