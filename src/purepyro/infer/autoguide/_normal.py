"""The mean-field normal guide."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import ClassVar, Generic, ParamSpec

import attrs
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to

from ..._fields import static
from ..._module import Module
from ..._scope import GIVEN
from ._prototype import Latent, Prototypes

P = ParamSpec("P")


class AutoNormal(Module, Generic[P]):
    r"""A guide in which each latent site is independent and normal in unconstrained space.

    .. math:: z = T(\mu + \sigma\,\epsilon), \quad \epsilon \sim N(0, I)

    with :math:`T` the ``biject_to`` of the site's support. Parameters are ``locs.<site>`` and
    ``scales.<site>``, the latter positive by a softplus. Sites in plates keep their plates; of a
    subsampled plate the parameters are full and subsampled with it.

    Args:
        model: The model whose latent sites to fit. It is a setting: its parameters are not the
            guide's.
        init_scale: The standard deviation to start from, in unconstrained space.

    Raises:
        DeclarationError: if the model has a discrete latent site, or one whose support moves.

    Source: ``pyro.infer.autoguide.AutoNormal``; Kucukelbir et al. 2017, "Automatic Differentiation
    Variational Inference".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import constrain, init, random
        >>> from purepyro.infer import AutoNormal
        >>> def model():
        ...     pyro.sample("scale", dist.HalfNormal(1.0))
        >>> guide = AutoNormal(model)
        >>> constrain(guide, init(guide, random.key(0)))
        {'locs.scale': tensor(0.), 'scales.scale': tensor(0.1000)}
    """

    starts_by_running: ClassVar[bool] = True

    model: Callable[P, object] = static()
    init_scale: float = static(default=0.1)
    _prototypes: Prototypes = attrs.field(
        init=False, factory=Prototypes, repr=False, metadata={"static": True}
    )

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Tensor]:
        """Draw all latent sites; returns their values by name."""
        given = GIVEN.get()
        # Run on arguments without data, as for prediction, the model has more latent sites than the
        # fit had: a site that no parameters were fitted to is left to the model.
        latents = [
            latent
            for latent in self._prototypes.of(self.model, args, kwargs)
            if given is None or latent.declared or f"locs.{latent.name}" in given
        ]
        plates = {
            frame.name: pyro.plate(
                frame.name, frame.full_size, subsample_size=frame.size, dim=frame.dim
            )
            for latent in latents
            for frame in latent.plates
        }
        values: dict[str, Tensor] = {}
        for latent in latents:
            with ExitStack() as stack:
                for frame in latent.plates:
                    stack.enter_context(plates[frame.name])
                values[latent.name] = self._draw(latent)
        return values

    def _draw(self, latent: Latent) -> Tensor:
        """Draw one site, inside its plates."""
        name, event_dim = latent.name, latent.unconstrained_event_dim
        zeros = torch.zeros(latent.unconstrained_shape, dtype=latent.dtype, device=latent.device)
        loc = pyro.param(f"locs.{name}", zeros, event_dim=event_dim)
        scale = pyro.param(
            f"scales.{name}",
            torch.full_like(zeros, self.init_scale),
            constraint=constraints.softplus_positive,
            event_dim=event_dim,
        )
        normal = dist.Normal(loc, scale).to_event(event_dim)
        if latent.is_real:
            return pyro.sample(name, normal)
        transform = biject_to(latent.support)
        z = pyro.sample(f"{name}_unconstrained", normal, infer={"is_auxiliary": True})
        value = transform(z)
        log_density = -transform.log_abs_det_jacobian(z, value)
        extra = log_density.ndim - (value.ndim - latent.event_dim)
        if extra > 0:
            log_density = log_density.flatten(-extra).sum(-1)
        delta = dist.Delta(value, log_density=log_density, event_dim=latent.event_dim)
        return pyro.sample(name, delta)
