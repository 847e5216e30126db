"""Guides of Pyro's own: what is told by them, and why they must not be set up inside a run."""

from __future__ import annotations

import sys
from functools import partial
from types import MethodType

from pyro.infer.autoguide.guides import AutoContinuous, prototype_hide_fn
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_messenger import TraceHandler
from torch import Tensor

from .._errors import DeclarationError
from ._handlers import handlers
from ._private import private_or

_PROTOTYPES = (
    prototype_hide_fn,
    private_or(
        "pyro.infer.autoguide.gaussian:AutoGaussian._prototype_hide_fn",
        None,
        "an AutoGaussian of Pyro's that is first called inside a run is told of it later",
    ),
)


def wrapped_by(fn: object) -> object | None:
    """What a ``poutine`` wrapper, a ``functools.partial`` or a bound method calls in the end."""
    if isinstance(fn, partial):
        # poutine handlers are partials of a private function, with the handler and fn
        return fn.args[1] if len(fn.args) >= 2 and isinstance(fn.args[0], Messenger) else fn.func
    if isinstance(fn, TraceHandler):
        return fn.fn
    if isinstance(fn, MethodType):
        return fn.__self__
    return None


def is_guide_messenger(guide: object) -> bool:
    """Whether a guide is one of Pyro's that run the model itself, with other distributions."""
    inner: object | None = guide
    while inner is not None:
        if isinstance(inner, GuideMessenger):
            return True
        inner = wrapped_by(inner)
    return False


def refuse_setup() -> None:
    """Refuse a guide of Pyro's that runs its model for the first time, before it takes any note.

    Raises:
        DeclarationError: if one is doing so.
    """
    stack = handlers()
    if len(stack) < 2:  # the run's own handler
        return
    for handler in stack:
        if not isinstance(handler, BlockMessenger) or handler.hide_fn not in _PROTOTYPES:
            continue
        guide = _setting_up()
        of_all = isinstance(guide, AutoContinuous)
        name = f"{type(guide).__name__}.{'loc' if of_all else 'locs.<site>'}"
        raise DeclarationError(_adoption_message(name))


def _setting_up() -> object:
    """The guide of Pyro's that is in its first call, further down Python's own stack."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_name != "_setup_prototype":
        frame = frame.f_back
    return frame.f_locals.get("self")


def _adoption_message(name: str) -> str:
    return (
        f"The parameter {name!r} is made by a PyroModule in its first call, as Pyro's guides do: "
        "it would keep this run's numbers for itself. Call it once outside of apply and init, "
        "`guide(*args)`; from then on it runs in them."
    )


def let_not_adopt(value: Tensor, name: str) -> Tensor:
    """``value``, so marked that a PyroModule which sets itself up in a run says why it cannot."""

    def unconstrained() -> Tensor:
        raise DeclarationError(_adoption_message(name))

    marked = value.view_as(value)
    setattr(marked, "unconstrained", unconstrained)  # noqa: B010
    return marked
