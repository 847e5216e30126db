"""What guides that are made from a model share: its latent sites, its plates, their start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeAlias

import attrs
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from ..._compat._pyro import indices_of
from ..._declare._fields import static
from ..._declare._reads import GIVEN
from ..._errors import DeclarationError
from ._guide import AutoGuide
from ._init_locs import Start
from ._initialization import Initializer, init_to_feasible
from ._latents import Latent, Prototypes

P = ParamSpec("P")

Spare: TypeAlias = Callable[[Tensor], Tensor]

# The plates that the parts of a guide have in common: a subsample is drawn once a run.
_SHARED: ContextVar[dict[str, pyro.plate] | None] = ContextVar("purepyro_plates", default=None)


class Look(NamedTuple):
    """What a guide has to do with in one run."""

    latents: list[Latent]
    plates: PlatesOfRun
    start: Start


class ModelGuide(AutoGuide[P]):
    """A guide made from a model; its parameters ``locs.<site>`` say which sites it has."""

    model: Callable[P, object] = static()
    init_loc_fn: Initializer = static(default=init_to_feasible)
    _prototypes: Prototypes = attrs.field(
        init=False, factory=Prototypes, repr=False, metadata={"static": True}
    )

    def look(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Look:
        """The latent sites that the guide has parameters for, and where they start.

        Run on arguments without data, as for prediction, the model has more latent sites than the
        fit had: a site that no parameters were fitted to is left to the model.

        Raises:
            DeclarationError: if one of them cannot be fitted.
        """
        given, plates = GIVEN.get(), PlatesOfRun()
        prototype = self._prototypes.of(self.model, args, kwargs)
        latents, rows = prototype.latents, {}
        if not prototype.fixed:
            drawn = {frame.name: plates.rows(frame) for frame in prototype.drawn}
            latents, arranged = prototype.now(self.model, args, kwargs, drawn)
            plates.arranged.update(arranged)
            rows = {**drawn, **arranged}
        latents = [
            latent
            for latent in latents
            if given is None or latent.declared or self.path_of(f"locs.{latent.name}") in given
        ]
        for latent in latents:
            if latent.fault is not None:
                raise DeclarationError(latent.fault)
        return Look(latents, plates, Start(self.model, self.init_loc_fn, args, kwargs, rows))

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
    """The plates of a guide's latent sites, each made once.

    Attributes:
        arranged: The rows of the plates that do not draw them.
    """

    def __init__(self) -> None:
        shared = _SHARED.get()
        self._plates: dict[str, pyro.plate] = {} if shared is None else shared
        self.arranged: dict[str, Tensor] = {}

    def rows(self, frame: CondIndepStackFrame) -> Tensor:
        """The rows of a plate, drawn if need be."""
        return indices_of(self._plate(frame))

    @contextmanager
    def around(self, latent: Latent, *, masked: bool = True) -> Iterator[None]:
        """A block inside all plates of a site, and under its mask."""
        with ExitStack() as stack:
            for frame in latent.plates:
                stack.enter_context(self._plate(frame))
            if masked and latent.mask is not None:
                stack.enter_context(poutine.mask(mask=latent.mask))
            yield

    def around_rows(self, latent: Latent) -> AbstractContextManager[None]:
        """A block in which parameters are of all rows, or of those whose bounds are known.

        Raises:
            DeclarationError: if nobody can know which rows these are.
        """
        if not latent.by_row:
            return nullcontext()
        for frame in latent.plates:
            if frame.full_size != frame.size and frame.name not in self.arranged:
                raise DeclarationError(
                    f"The support {latent.support} of the latent site {latent.name!r} differs by "
                    f"row of the plate {frame.name!r}, which draws {frame.size} of "
                    f"{frame.full_size} rows, so the quantiles would be of rows that nobody knows. "
                    f"Name the rows in the model, by pyro.plate({frame.name!r}, "
                    f"{frame.full_size}, subsample=rows), or pass all."
                )
        return self.around(latent)

    def ordered(self, latent: Latent, value: Tensor, event_dim: int) -> Tensor:
        """``value`` with its rows as they are arranged, where all rows of a plate take part.

        Where fewer do, the plate itself picks them.
        """
        for frame in latent.plates:
            rows = self.arranged.get(frame.name)
            if rows is not None and frame.dim is not None and frame.size == frame.full_size:
                value = value.index_select(frame.dim - event_dim, rows)
        return value

    def _plate(self, frame: CondIndepStackFrame) -> pyro.plate:
        if frame.name not in self._plates:
            rows = self.arranged.get(frame.name)
            size = frame.size if rows is None else None
            self._plates[frame.name] = pyro.plate(
                frame.name, frame.full_size or frame.size, size, rows, dim=frame.dim
            )
        return self._plates[frame.name]


def pushed(latent: Latent, z: Tensor, spare: Spare | None = None) -> dist.Delta:
    """The law of a site whose unconstrained value is known: a point, with the Jacobian's weight.

    Args:
        latent: The site.
        z: Its unconstrained value.
        spare: The log density that masked elements have instead, of which the model knows nothing.
    """
    transform = biject_to(latent.support)
    value = transform(z)
    log_density = _by_row(-transform.log_abs_det_jacobian(z, value), latent, value)
    if spare is not None and latent.mask is not None:
        log_density = torch.where(
            torch.as_tensor(latent.mask, device=z.device),
            log_density,
            -_by_row(spare(z), latent, value),
        )
    # Its own value is in its support.
    return dist.Delta(
        value, log_density=log_density, event_dim=latent.event_dim, validate_args=False
    )


def _by_row(log_density: Tensor, latent: Latent, value: Tensor) -> Tensor:
    """A log density by element, summed over those of an event."""
    extra = log_density.ndim - (value.ndim - latent.event_dim)
    return log_density.flatten(-extra).sum(-1) if extra > 0 else log_density


def normal_quantiles(latent: Latent, levels: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Quantiles of a site that is normal in unconstrained space."""
    steps = torch.special.ndtri(levels.to(loc)).reshape(-1, *(1 for _ in loc.shape))
    # A point has no other quantiles than itself; 0 times the infinite steps to 0 and 1 is none.
    value: Tensor = biject_to(latent.support)(loc + torch.where(scale > 0, scale * steps, 0.0))
    return value
