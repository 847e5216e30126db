"""What of Pyro and torch a run changes for a time, and how it comes back whenever the run ends.

Ctrl-C can come between any two steps of Python, inside of ``__exit__`` and ``finally`` as well. So
nothing here relies on a block's end being reached: what was is *read* before anything is changed,
and put back by steps that can be done twice. They *are* done twice, the second time in the
``finally`` of the first, so one interrupt cannot hit both. A lock is taken, and noted, in a single
call into C, which is never interrupted half way; so is its release.

Three kinds of state:

* Pyro's handler stack, its stack of plates and its parameter store are lists and dicts of the
  process. In the thread of a run they are others (:data:`_OWN`), and other threads do not notice.
* The rest of Pyro's process-wide state has no room for that, so runs take turns, and keep what was
  in :data:`_LEVELS`.
* torch's modes, transforms and switches belong to the thread; :class:`Before` knows them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import wraps
from operator import call
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, cast

import pyro
import pyro.nn.module as pyro_module
import torch
from pyro.distributions import util as distributions_util
from pyro.infer import util as infer_util
from pyro.params.param_store import ParamStoreDict
from pyro.poutine import runtime
from pyro.poutine import util as poutine_util
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution as TorchDistribution
from torch.utils import _python_dispatch

from ._innermost import INNERMOST

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Msg: TypeAlias = Any

# Runs take turns. Re-entrant: a model may itself call `apply`.
RUN_LOCK: Any = threading.RLock()

_PYRO_MODULE: Any = pyro_module
# Each part of Pyro has its own switch for checks of numbers.
_DISTRIBUTIONS: Any = distributions_util
_INFER: Any = infer_util
_POUTINE: Any = poutine_util
_functorch: Any = cast("Any", torch._C)._functorch
_C: Any = torch._C
_DISPATCH: Any = _python_dispatch
_ENUMERATED: dict[str, object] = vars(runtime._ENUM_ALLOCATOR)


# --- What is another one in the thread of a run ----------------------------------------------


class _Own(threading.local):
    """What Pyro has for the run that this thread is in; ``None`` outside of runs."""

    handlers: list[Any] | None = None
    plates: list[Any] | None = None
    store: dict[str, Any] | None = None


_OWN = _Own()


class _Handlers(list[Any]):
    """Pyro's stack of handlers, in whose place a thread that is in a run sees one of its own."""


class _Plates(list[Any]):
    """The same of Pyro's stack of plates."""


def _of_handlers(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_this_thread(shared: list[Any], *args: Any) -> Any:
        own = _OWN.handlers
        return method(shared if own is None else own, *args)

    return of_this_thread


def _of_plates(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_this_thread(shared: list[Any], *args: Any) -> Any:
        own = _OWN.plates
        return method(shared if own is None else own, *args)

    return of_this_thread


def handlers() -> list[Any]:
    """Pyro's stack of handlers in this thread: a plain list in a run, and quicker to walk."""
    own = _OWN.handlers
    return _STACK if own is None else own


for _method in (
    *("append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse"),
    *("__contains__", "__delitem__", "__eq__", "__getitem__", "__iter__", "__len__", "__ne__"),
    *("__repr__", "__reversed__", "__setitem__"),
):
    _of_lists = getattr(list, _method)
    setattr(_Handlers, _method, _of_handlers(_of_lists))
    setattr(_Plates, _method, _of_plates(_of_lists))


class _PerRunStore(ParamStoreDict):
    """Pyro's parameter store, in whose place a thread that is in a run sees an empty one."""


def _part_of_store(name: str) -> property:
    def read(store: ParamStoreDict) -> Any:
        return (vars(store) if _OWN.store is None else _OWN.store)[name]

    def write(store: ParamStoreDict, value: Any) -> None:
        (vars(store) if _OWN.store is None else _OWN.store)[name] = value

    return property(read, write)


_STORE_PARTS = ("_params", "_param_to_name", "_constraints")
for _part in _STORE_PARTS:
    setattr(_PerRunStore, _part, _part_of_store(_part))

_SHARED_STACK: Any = runtime._PYRO_STACK
_STACK: Any = _Handlers(_SHARED_STACK)
for _module in list(sys.modules.values()):  # whoever imported it by name, Pyro's own or not
    if getattr(_module, "__dict__", {}).get("_PYRO_STACK") is _SHARED_STACK:
        setattr(_module, "_PYRO_STACK", _STACK)  # noqa: B010
runtime._DIM_ALLOCATOR._stack = _Plates(runtime._DIM_ALLOCATOR._stack)
cast("Any", pyro.get_param_store()).__class__ = _PerRunStore


# --- What runs take turns for ------------------------------------------------------------------


class _Shared:
    """What there was of Pyro's process-wide state before a run, or a block, changed it."""

    def __init__(self) -> None:
        self._own = _OWN.handlers, _OWN.plates, _OWN.store
        self._enumerated = dict(_ENUMERATED)
        self.default = runtime.default_process_message
        self._local_params = _PYRO_MODULE._MODULE_LOCAL_PARAMS
        self.validates: bool = TorchDistribution._validate_args
        self._of_distributions = _DISTRIBUTIONS._VALIDATION_ENABLED
        self._of_infer = _INFER._VALIDATION_ENABLED
        self._of_poutine = _POUTINE._VALIDATION_ENABLED

    def put_back(self) -> None:
        """Make it so again; nothing happens the second time."""
        _OWN.handlers, _OWN.plates, _OWN.store = self._own
        if self._enumerated != _ENUMERATED:
            _ENUMERATED.update(self._enumerated)
            for name in _ENUMERATED.keys() - self._enumerated.keys():
                del _ENUMERATED[name]
        runtime.default_process_message = self.default
        _PYRO_MODULE._MODULE_LOCAL_PARAMS = self._local_params
        TorchDistribution._validate_args = self.validates
        _DISTRIBUTIONS._VALIDATION_ENABLED = self._of_distributions
        _INFER._VALIDATION_ENABLED = self._of_infer
        _POUTINE._VALIDATION_ENABLED = self._of_poutine


# For each time that the lock is held: what there was before, or that nothing was read yet.
_LEVELS: list[_Shared | bool] = []


def _take_turn() -> _Shared:
    """Wait for this thread's turn, and note what there is."""
    _LEVELS.extend(map(RUN_LOCK.acquire, (True,)))  # both in one call
    before = _LEVELS[-1] = _Shared()
    return before


def _turns() -> int:
    """How many times this thread holds the lock."""
    return len(_LEVELS) if RUN_LOCK._is_owned() else 0


def _end_turns(down_to: int) -> None:
    """Put back what was, and release the lock, until this thread holds it so many times."""
    while RUN_LOCK._is_owned() and len(_LEVELS) > down_to:
        before = _LEVELS[-1]
        if isinstance(before, _Shared):
            before.put_back()
        deque(map(call, (_LEVELS.pop, RUN_LOCK.release)), maxlen=0)  # both in one call


def alone(
    messenger: Messenger,
    answer: Callable[[Msg], bool],
    body: Callable[[bool], T],
    *,
    blind: bool,
) -> T:
    """What ``body`` returns, for which Pyro's process-wide state belongs to this run alone.

    Inside, the handler stack holds only ``messenger``, no plate dimension is taken, the parameter
    store is an empty one (PyroModules leave notes there), and ``answer`` serves every message that
    no handler answered, in place of Pyro's default, which reads the store and torch's global
    generator. Serving the default, rather than being a handler, is what reaches the sites that
    ``poutine.block`` hides. Messages of other threads take Pyro's own way.

    Args:
        messenger: The handler at the bottom of the stack.
        answer: Serves a message; ``False`` if it is none of the run's.
        body: Is told whether distributions validated before.
        blind: Whether numbers cannot be looked at, so that distributions must not validate.
    """
    turns = _turns()
    try:
        before = _take_turn()
        default = before.default

        def served(msg: Msg) -> None:
            # In other threads there is no run, or it is of a time before its turn.
            if _OWN.handlers is None or not answer(msg):
                default(msg)

        _OWN.handlers, _OWN.plates = [messenger], []
        _OWN.store = {part: {} for part in _STORE_PARTS}
        runtime.default_process_message = served
        if blind:  # a check of numbers would end the trace, or the vmap
            TorchDistribution._validate_args = False
        _PYRO_MODULE._MODULE_LOCAL_PARAMS = False
        return body(before.validates)
    finally:
        try:
            _end_turns(turns)
        finally:
            _end_turns(turns)


@contextmanager
def unvalidated() -> Iterator[None]:
    """A stretch of code in which Pyro and torch check no numbers of distributions.

    The switches are process-wide, so other runs wait until they are back.
    """
    turns = _turns()
    try:
        _take_turn()
        pyro.enable_validation(False)
        yield
    finally:
        try:
            _end_turns(turns)
        finally:
            _end_turns(turns)


def _in_child() -> None:
    """A forked child has one thread: if another one was in a run, that run is over here."""
    if not RUN_LOCK._is_owned():
        if _LEVELS and isinstance(_LEVELS[0], _Shared):
            _LEVELS[0].put_back()
        _LEVELS.clear()
        RUN_LOCK._at_fork_reinit()


os.register_at_fork(after_in_child=_in_child)


# --- What belongs to the thread ---------------------------------------------------------------


class Before:
    """The state of this thread, and its turns, as they are now; to be put back."""

    __slots__ = (
        *("_autograd_function", "_context", "_depth", "_dispatch", "_functions", "_grad"),
        *("_mode", "_state", "_turns"),
    )

    def __init__(self) -> None:
        self._turns = _turns()
        self._functions: int = _len_function_modes()
        self._dispatch: int = _len_dispatch_modes()
        self._depth: int = _depth_of_transforms()
        self._grad = torch.is_grad_enabled()
        self._state = _function_state()
        self._autograd_function = _functorch.get_single_level_autograd_function_allowed()
        self._mode = INNERMOST.mode
        self._context = copy_context()

    def leave(self) -> None:
        """The end of what came to its end: a function mode may still be on."""
        while _len_function_modes() > self._functions:
            _C._pop_torch_function_stack()
        INNERMOST.mode = self._mode

    def put_back(self) -> None:
        """The end of what was cut short: all is as before; nothing happens the second time."""
        if _function_state() != self._state:
            _C._set_torch_function_state(self._state)
        if _depth_of_transforms() > self._depth:
            _functorch.pop_dynamic_layer_stack_and_undo_to_depth(self._depth)
        if _functorch.get_single_level_autograd_function_allowed() != self._autograd_function:
            _functorch.set_single_level_autograd_function_allowed(self._autograd_function)
        if _len_dispatch_modes() > self._dispatch:
            _pop_dispatch_modes(self._dispatch)
        self.leave()
        if torch.is_grad_enabled() != self._grad:
            torch._C._set_grad_enabled(self._grad)
        _put_back_variables(self._context)
        _end_turns(self._turns)


_len_function_modes: Callable[[], int] = _C._len_torch_function_stack
_len_dispatch_modes: Callable[[], int] = _C._len_torch_dispatch_stack
_depth_of_transforms: Callable[[], int] = _functorch.get_dynamic_layer_stack_depth
_function_state: Callable[[], object] = _C._get_torch_function_state


def _pop_dispatch_modes(down_to: int) -> None:
    while _len_dispatch_modes() > down_to:
        top = _C._get_dispatch_stack_at(_len_dispatch_modes() - 1)
        _C._pop_torch_dispatch_stack(getattr(top, "_mode_key", None))
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


def intact(fn: F) -> F:
    """``fn``, after whose calls the thread is as it was before, whatever they are ended by.

    For what calls torch's transforms and switches (``vmap``, ``no_grad``), which undo themselves in
    Python, where an interrupt can cut them short.
    """

    @wraps(fn)
    def whole(*args: Any, **kwargs: Any) -> Any:
        before = None
        try:
            before = Before()
            return fn(*args, **kwargs)
        except BaseException as error:
            end = error
            try:
                end = settled(error)
                if before is not None:
                    before.put_back()
            finally:  # again, as an interrupt may have cut the first short
                if before is not None:
                    before.put_back()
            if end is not error:
                raise end from None
            raise

    return cast("F", whole)


def settled(error: BaseException) -> BaseException:
    """The error that a call ends by, after its blocks have ended; before :meth:`Before.put_back`.

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
