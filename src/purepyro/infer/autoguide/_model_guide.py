"""What guides that are made from a model share: its latent sites, its plates, their start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec

import attrs
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from ..._errors import DeclarationError
from ..._fields import static
from ..._scope import GIVEN
from ._guide import AutoGuide
from ._initialization import Initializer, init_to_feasible
from ._prototype import Latent, Prototypes
from ._start import Start

P = ParamSpec("P")

# The plates that the parts of a guide have in common: a subsample is drawn once a run.
_SHARED: ContextVar[dict[str, pyro.plate] | None] = ContextVar("purepyro_plates", default=None)


class ModelGuide(AutoGuide[P]):
    """A guide made from a model; its parameters ``locs.<site>`` say which sites it has."""

    model: Callable[P, object] = static()
    init_loc_fn: Initializer = static(default=init_to_feasible)
    _prototypes: Prototypes = attrs.field(
        init=False, factory=Prototypes, repr=False, metadata={"static": True}
    )

    def latents(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Latent]:
        """The latent sites that the guide has parameters for.

        Run on arguments without data, as for prediction, the model has more latent sites than the
        fit had: a site that no parameters were fitted to is left to the model.

        Raises:
            DeclarationError: if one of them cannot be fitted.
        """
        given = GIVEN.get()
        latents = [
            latent
            for latent in self._prototypes.of(self.model, args, kwargs)
            if given is None or latent.declared or self.path_of(f"locs.{latent.name}") in given
        ]
        for latent in latents:
            if latent.fault is not None:
                raise DeclarationError(latent.fault)
        return latents

    def start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Start:
        """Where they start."""
        return Start(self.model, self.init_loc_fn, args, kwargs)

    def param(
        self,
        name: str,
        start: Callable[[], Tensor],
        like: Tensor,
        *,
        constraint: Constraint = constraints.real,
        event_dim: int | None = None,
    ) -> Tensor:
        """The parameter ``name``; ``like`` says of which shape and dtype it must be."""
        init = start if GIVEN.get() is None else like
        return pyro.param(self.path_of(name), init, constraint=constraint, event_dim=event_dim)


@contextmanager
def shared_plates() -> Iterator[None]:
    """A block in which all guides have their plates in common."""
    token = _SHARED.set({} if _SHARED.get() is None else _SHARED.get())
    try:
        yield
    finally:
        _SHARED.reset(token)


class PlatesOfRun:
    """The plates of a guide's latent sites, each made once."""

    def __init__(self) -> None:
        shared = _SHARED.get()
        self._plates: dict[str, pyro.plate] = {} if shared is None else shared

    @contextmanager
    def around(self, latent: Latent) -> Iterator[None]:
        """A block inside all plates of a site."""
        with ExitStack() as stack:
            for frame in latent.plates:
                if frame.name not in self._plates:
                    self._plates[frame.name] = pyro.plate(
                        frame.name,
                        frame.full_size or frame.size,
                        subsample_size=frame.size,
                        dim=frame.dim,
                    )
                stack.enter_context(self._plates[frame.name])
            yield


def pushed(latent: Latent, z: Tensor) -> dist.Delta:
    """The law of a site whose unconstrained value is known: a point, with the Jacobian's weight."""
    transform = biject_to(latent.support)
    value = transform(z)
    log_density = -transform.log_abs_det_jacobian(z, value)
    extra = log_density.ndim - (value.ndim - latent.event_dim)
    if extra > 0:
        log_density = log_density.flatten(-extra).sum(-1)
    return dist.Delta(value, log_density=log_density, event_dim=latent.event_dim)


def normal_quantiles(latent: Latent, levels: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Quantiles of a site that is normal in unconstrained space."""
    steps = torch.special.ndtri(levels.to(loc)).reshape(-1, *(1 for _ in loc.shape))
    # A point has no other quantiles than itself; 0 times the infinite steps to 0 and 1 is none.
    value: Tensor = biject_to(latent.support)(loc + torch.where(scale > 0, scale * steps, 0.0))
    return value
