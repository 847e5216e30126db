"""torch's modes, transforms and switches, which belong to the thread, and how they come back.

What was is read before anything is changed, and put back by steps that can be done twice, as in
``_turns.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

import torch

from ._function_modes import mode_depth, pop_modes
from ._innermost import INNERMOST
from ._private import private_or
from ._transforms import dispatch_modes
from ._turns import end_turns, turns_taken

F = TypeVar("F", bound=Callable[..., Any])

_COST = "an interrupt (Ctrl-C) inside a run may leave torch changed"


def _nothing(*_: object) -> None:
    """What is done without a name that only interrupts need."""


_dispatch_mode_at: Any = private_or("torch._C:_get_dispatch_stack_at", _nothing, _COST)
_pop_dispatch_mode: Any = private_or("torch._C:_pop_torch_dispatch_stack", None, _COST)
_DISPATCH: Any = private_or("torch.utils._python_dispatch:", None, _COST)
_function_state: Any = private_or("torch._C:_get_torch_function_state", _nothing, _COST)
_set_function_state: Any = private_or("torch._C:_set_torch_function_state", _nothing, _COST)
_transform_depth: Any = private_or(
    "torch._C:_functorch.get_dynamic_layer_stack_depth", lambda: 0, _COST
)
_undo_transforms: Any = private_or(
    "torch._C:_functorch.pop_dynamic_layer_stack_and_undo_to_depth", _nothing, _COST
)
_allows_function: Any = private_or(
    "torch._C:_functorch.get_single_level_autograd_function_allowed", _nothing, _COST
)
_allow_function: Any = private_or(
    "torch._C:_functorch.set_single_level_autograd_function_allowed", _nothing, _COST
)


class Before:
    """The state of this thread, and its turns, as they are now; to be put back."""

    __slots__ = (
        *("_autograd_function", "_context", "_depth", "_dispatch", "_functions", "_grad"),
        *("_mode", "_state", "_turns"),
    )

    def __init__(self) -> None:
        self._turns = turns_taken()
        self._functions = mode_depth()
        self._dispatch = dispatch_modes()
        self._depth: int = _transform_depth()
        self._grad = torch.is_grad_enabled()
        self._state: object = _function_state()
        self._autograd_function: object = _allows_function()
        self._mode = INNERMOST.mode
        self._context = copy_context()

    def leave(self) -> None:
        """The end of what came to its end: a function mode may still be on."""
        pop_modes(self._functions)
        INNERMOST.mode = self._mode

    def put_back(self) -> None:
        """The end of what was cut short: all is as before; nothing happens the second time."""
        if _function_state() != self._state:
            _set_function_state(self._state)
        if _transform_depth() > self._depth:
            _undo_transforms(self._depth)
        if _allows_function() != self._autograd_function:
            _allow_function(self._autograd_function)
        if dispatch_modes() > self._dispatch:
            _pop_dispatch_modes(self._dispatch)
        self.leave()
        if torch.is_grad_enabled() != self._grad:
            torch.set_grad_enabled(self._grad)
        _put_back_variables(self._context)
        end_turns(self._turns)


def _pop_dispatch_modes(down_to: int) -> None:
    if _pop_dispatch_mode is None or _DISPATCH is None:
        return
    while dispatch_modes() > down_to:
        top = _dispatch_mode_at(dispatch_modes() - 1)
        _pop_dispatch_mode(getattr(top, "_mode_key", None))
    if not down_to:  # what torch keeps of them besides their stack
        _DISPATCH._is_in_torch_dispatch_mode = False
        _DISPATCH._is_in_non_infra_torch_dispatch_mode = False
        _DISPATCH._is_in_any_mode_without_ignore_compile_internals = False
        _DISPATCH.set_is_in_mode_without_ignore_compile_internals(False)


def _put_back_variables(before: Context) -> None:
    """The context variables of this package, as they were."""
    for variable, value in copy_context().items():
        if variable.name.startswith("purepyro_"):
            was = before[variable] if variable in before else _default(variable)
            if value is not was:
                variable.set(was)


def _default(variable: ContextVar[Any]) -> object:
    return Context().run(variable.get)


class Intact:
    """A block after which the thread is as it was before, whatever the block is ended by.

    For what calls torch's transforms and switches (``vmap``, ``no_grad``), which undo themselves in
    Python, where an interrupt can cut them short. It is entered twice,
    ``with (guard := Intact()), guard:``, since an interrupt may cut one of the exits short.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = Before()

    def __enter__(self) -> None:
        """Nothing: what was is known."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            put_back_after(error, self._before.put_back)


def put_back_after(error: BaseException, put_back: Callable[[], None]) -> None:
    """End a block that ``error`` cut short; raises another error if that one hides an interrupt."""
    end = settled(error)
    put_back()
    if end is not error:
        raise end from None


def intact(fn: F) -> F:
    """``fn``, each of whose calls is a block ``Intact``."""

    @wraps(fn)
    def whole(*args: Any, **kwargs: Any) -> Any:
        with (guard := Intact()), guard:
            return fn(*args, **kwargs)

    return cast("F", whole)


def settled(error: BaseException) -> BaseException:
    """The error that a call ends by, after its blocks have ended; before ``Before.put_back()``.

    A block that is a generator, and whose end was cut short before it began, would end when the
    traceback is forgotten, some time later, and change what was put back by then. And one that was
    cut short while it began may fail to end, by an error that would hide the interrupt; one that a
    model raises itself is its answer to the interrupt, and stays.
    """
    inner: BaseException | None = error
    ours = True
    while inner is not None and isinstance(inner, Exception):
        ours = ours and _place_of(inner) in _MACHINERY
        inner = inner.__context__
    if inner is None:
        return error
    trace = inner.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "contextlib":
            with suppress(RuntimeError):  # it is under way
                trace.tb_frame.clear()
        trace = trace.tb_next
    return inner if ours else error


_MACHINERY = ("torch", "pyro", "purepyro", "contextlib")


def _place_of(error: BaseException) -> str:
    """The package that raised an error."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return name.partition(".")[0]
