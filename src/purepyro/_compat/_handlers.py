"""Pyro's stack of handlers, its plates and its parameter store: of their own in each run's thread.

They are lists and dicts of the process. In the thread of a run they are others (``OWN``), so other
threads do not notice the run.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import pyro
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger

from ._private import Missing, private

_SHARED_STACK: Any = private("pyro.poutine.runtime:_PYRO_STACK", "runs")
_PLATES: Any = private("pyro.poutine.runtime:_DIM_ALLOCATOR", "runs")
_SHARED_PLATES: Any = private("pyro.poutine.runtime:_DIM_ALLOCATOR._stack", "runs")
ENUMERATED: Any = private("pyro.poutine.runtime:_ENUM_ALLOCATOR", "runs")

_MISSING = [
    each
    for each in (_SHARED_STACK, _PLATES, _SHARED_PLATES, ENUMERATED)
    if isinstance(each, Missing)
]


class _Own(threading.local):
    """What Pyro has for the run that this thread is in; ``None`` outside of runs."""

    handlers: list[Any] | None = None
    plates: list[Any] | None = None
    store: dict[str, Any] | None = None


OWN = _Own()


def handlers() -> list[Any]:
    """Pyro's stack of handlers in this thread: a plain list in a run, and quicker to walk."""
    own = OWN.handlers
    return _STACK if own is None else own


def plate_dims() -> list[Any]:
    """The names of the plates that have the dimensions -1, -2, ... in this thread."""
    own = OWN.plates
    return _PLATES._stack if own is None else own


def is_handled() -> bool:
    """Whether a handler of Pyro is at work, so that statements have an effect."""
    return bool(handlers())


def begin(messenger: Messenger) -> None:
    """From here on this thread has one handler, no plate, and an empty parameter store.

    Raises:
        UnsupportedVersionError: if Pyro keeps its own elsewhere.
    """
    for each in _MISSING:
        each.refuse()
    OWN.handlers, OWN.plates = [messenger], []
    OWN.store = {part: {} for part in _STORE_PARTS}


# --- In place of Pyro's own -------------------------------------------------------------------


class _Handlers(list[Any]):
    """Pyro's stack of handlers, in whose place a thread that is in a run sees one of its own."""


class _Plates(list[Any]):
    """Pyro's stack of plates, in whose place a thread that is in a run sees one of its own."""


def _of_handlers(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_this_thread(shared: list[Any], *args: Any) -> Any:
        own = OWN.handlers
        return method(shared if own is None else own, *args)

    return of_this_thread


def _of_plates(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def of_this_thread(shared: list[Any], *args: Any) -> Any:
        own = OWN.plates
        return method(shared if own is None else own, *args)

    return of_this_thread


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
        return (vars(store) if OWN.store is None else OWN.store)[name]

    def write(store: ParamStoreDict, value: Any) -> None:
        (vars(store) if OWN.store is None else OWN.store)[name] = value

    return property(read, write)


_STORE_PARTS = tuple(vars(ParamStoreDict()))  # dicts all of them
for _part in _STORE_PARTS:
    setattr(_PerRunStore, _part, _part_of_store(_part))


def _replace() -> Any:
    """Put these in the place of Pyro's own; gives the stack of handlers."""
    stack = _Handlers(_SHARED_STACK)
    for module in list(sys.modules.values()):  # whoever imported it by name, Pyro's own or not
        if getattr(module, "__dict__", {}).get("_PYRO_STACK") is _SHARED_STACK:
            setattr(module, "_PYRO_STACK", stack)  # noqa: B010
    _PLATES._stack = _Plates(_SHARED_PLATES)
    cast("Any", pyro.get_param_store()).__class__ = _PerRunStore
    return stack


_STACK: Any = _MISSING[0] if _MISSING else _replace()
