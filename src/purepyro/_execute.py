"""One run of a model: hermetic, keyed, recorded.

This is the machinery under ``apply``, ``init`` and the rest: it installs the handler that answers
(:mod:`._answers`), keeps the sites (:mod:`._sites`), and guards what a run may not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from types import MethodType
from typing import Any, Generic, Literal, TypeVar
from weakref import WeakKeyDictionary

import attrs
import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from ._answers import Answers
from ._bind import bind, is_bound
from ._boundary import Hermetic, generators, wrapped_by
from ._buffers import ACTIVE, Buffers
from ._errors import DeclarationError, describe
from ._inputs import Inputs
from ._node import Node, nodes
from ._scope import FIELDS, GIVEN, RUNNING, Running
from ._sites import Recorder, Site
from ._substitute import Substitute
from .random import Key, name_key
from .random._key import check_key
from .random._mode import KeyedRandom

R = TypeVar("R")

# A Module never changes, so this is found out once for each.
_HAS_NETS: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


@attrs.frozen
class Outcome(Generic[R]):
    """What came out of a run.

    Attributes:
        result: What the model returned.
        sites: The sites, by name, in the order of the run.
        params: The parameters; in a collecting run also those it started.
        constraints: The constraints of the parameters that were asked for.
        params_read: The names of the parameters that were asked for.
        values_read: The names of the given values that were asked for.
        buffers: The buffers of ``torch.nn`` modules as the run left them.
    """

    result: R
    sites: dict[str, Site]
    params: dict[str, Tensor]
    constraints: dict[str, Constraint]
    params_read: set[str]
    values_read: set[str]
    buffers: Buffers


@attrs.frozen(kw_only=True)
class Setting:
    """How to run, beyond the model and its arguments. See :class:`Answers`."""

    params: Mapping[str, Tensor] = attrs.field(factory=dict)
    values: Mapping[str, Tensor] = attrs.field(factory=dict)
    state: Mapping[str, Tensor] | None = None
    collect: bool = False
    draws: bool = True


def execute(
    model: Callable[..., R],
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    setting: Setting,
) -> Outcome[R]:
    """Run ``model`` once, as a pure function of its arguments."""
    as_model(model)
    check_key(key, single=True)
    inputs = Inputs(setting.params, args, kwargs)
    root = root_of(model)
    run = _Run(model, key, args, kwargs, setting, plain=root is None)
    redirect = root is None or _has_nets(root)
    if redirect:
        outcome = run(redirect=True)
    else:
        outcome = watched(lambda: run(redirect=_WATCHED.get() == "redirected"))
    inputs.require_unchanged()
    return outcome


def as_model(model: object) -> Callable[..., Any]:
    """``model`` itself if it can be run.

    Raises:
        DeclarationError: if it is a class of Module, or cannot be called.
    """
    if isinstance(model, type) and issubclass(model, Node):
        raise DeclarationError(
            f"The model is the class {model.__name__}; a model is an instance, with its settings. "
            f"Write {model.__name__}(...)."
        )
    if not callable(model):
        raise DeclarationError(
            f"The model is {describe(model)}, which cannot be called, so it is no model. Pass a "
            "Module, a function with pyro statements, or another callable."
        )
    return model


def root_of(model: object) -> Node | None:
    """The Module behind a model: itself, or within a bound method or ``poutine`` wrappers."""
    inner: object | None = model
    while inner is not None:
        if isinstance(inner, Node):
            return inner
        inner = wrapped_by(inner)
    return None


@attrs.frozen
class _Run(Generic[R]):
    """One run, still to be started: it can be started again."""

    model: Callable[..., R]
    key: Key
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    setting: Setting
    plain: bool

    def __call__(self, *, redirect: bool) -> Outcome[R]:
        """Run; with ``redirect``, torch's own random functions (dropout) draw from the key too."""
        setting, recorder, buffers = self.setting, Recorder(), Buffers(self.setting.state)
        substitute = Substitute() if self.plain else None
        answers = Answers(
            setting.params,
            self.key,
            setting.values,
            substitute,
            collect=setting.collect,
            draws=setting.draws,
        )
        given = None if setting.collect else frozenset(setting.params)
        fields: set[str] = set()
        running = RUNNING.set(
            Running(self.key, setting.params, setting.collect, answers.params_read)
        )
        tokens = ACTIVE.set(buffers), GIVEN.set(given), FIELDS.set(fields)
        try:
            with ExitStack() as stack:
                stack.enter_context(Hermetic(recorder, answers.answer))
                if redirect:
                    stack.enter_context(KeyedRandom(name_key(self.key, "<torch>")))
                if substitute is not None:
                    _register_buffers(self.model, substitute, buffers)
                    stack.enter_context(substitute)
                result = _callable(self.model)(*self.args, **self.kwargs)
        except Exception as error:
            _note_local_fields(error, [s for s in recorder.sites.values() if s.name in fields])
            raise
        finally:
            ACTIVE.reset(tokens[0])
            GIVEN.reset(tokens[1])
            FIELDS.reset(tokens[2])
            RUNNING.reset(running)
        return Outcome(
            result,
            recorder.sites,
            answers.params,
            answers.constraints,
            answers.params_read,
            answers.values_read,
            buffers,
        )


# Whether somebody looks on: runs without redirection, or with it since they were seen to draw.
_WATCHED: ContextVar[Literal["plain", "redirected"] | None] = ContextVar("watched", default=None)


def watched(runs: Callable[[], R]) -> R:
    """Run without the redirection, which costs time at every operation, if it is not needed.

    A Module without ``torch.nn`` parts seldom calls torch's random functions itself. If this one
    did, the global generator is put back and all repeated with redirection. Several runs in one
    are looked at once.
    """
    if _WATCHED.get() is not None:
        return runs()
    before = _generator_states()
    token = _WATCHED.set("plain")
    try:
        result = runs()
    except RuntimeError as error:
        if "randomness" not in str(error):  # vmap's refusal of unkeyed random functions
            _restore(before)
            raise
    except BaseException:
        _restore(before)
        raise
    else:
        if all(map(torch.equal, before, _generator_states())):
            return result
    finally:
        _WATCHED.reset(token)
    _restore(before)
    token = _WATCHED.set("redirected")
    try:
        return runs()
    finally:
        _WATCHED.reset(token)


def _generator_states() -> list[Tensor]:
    return [generator.get_state() for generator in generators()]


def _restore(states: list[Tensor]) -> None:
    for generator, state in zip(generators(), states, strict=False):
        generator.set_state(state)


def _has_nets(root: Node) -> bool:
    found = _HAS_NETS.get(root)
    if found is None:
        found = _HAS_NETS[root] = any(isinstance(node, nn.Module) for _, node in nodes(root))
    return found


def _note_local_fields(error: Exception, sites: Iterable[Site]) -> None:
    """Tell of fields first read in a plate: their shapes are the usual cause of a shape error."""
    for site in sites:
        if site.plates:
            plates = " and ".join(repr(frame.name) for frame in site.plates)
            error.add_note(
                f"The field {site.name!r} was first read inside the plate {plates}, so it is local "
                f"to it and has the shape {list(site.value.shape)}. For one value, read the field "
                "before the plate."
            )


def _callable(model: Callable[..., R]) -> Callable[..., R]:
    """The model itself; for a method of a Module, the same method on a bound copy of it."""
    if isinstance(model, MethodType):
        owner = model.__self__
        if isinstance(owner, Node) and not is_bound(owner):
            return MethodType(model.__func__, bind(owner))
    return model


def _register_buffers(model: object, substitute: Substitute, buffers: Buffers) -> None:
    """A ``PyroModule`` holds its buffers itself: let it work on copies of them."""
    if isinstance(model, nn.Module):
        for original, copy in buffers.watch(model):
            substitute.register(original, copy)
