"""Where a function finds what is not among its arguments.

A graph takes the tensors that it captured as inputs, so their numbers are always those of the call.
If a name, an attribute or an item holds another tensor by then, that one is taken: the way from the
function to each captured tensor is remembered, as far as it leads over things that can change. What
is no tensor, and may change as well, is remembered as it was: if it is something else, a graph is
out of date. Attributes count only if the function, or one that it calls, names them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import attrs
from torch import Tensor, nn

from ..._errors import describe
from ._access_paths import GONE, PLAIN, Seen, Step, Watch, Way, is_frozen, mark_of

_COMPILER = f"{__name__.rpartition('.guards')[0]}."

_LIMIT = 20_000  # objects to look at

# Whose globals and attributes are their own business.
_LIBRARIES = frozenset(
    {"attr", "attrs", "numpy", "optree", "purepyro", "pyro", "torch", "torchopt", "tqdm"}
    | sys.stdlib_module_names
)


@attrs.frozen
class Captures:
    """What a function captured.

    Attributes:
        tensors: Of each tensor all ways that may lead elsewhere, or the tensor if there is none.
        values: All else that may change.
    """

    tensors: tuple[tuple[Way, ...] | Tensor, ...]
    values: tuple[Seen, ...]
    _watch: Watch = attrs.field(
        init=False, default=attrs.Factory(lambda self: Watch(self.values), takes_self=True)
    )

    def current(self) -> list[Tensor] | None:
        """The captured tensors as they are now.

        ``None`` if one is none any more, or what was one tensor under two names is two.
        """
        found: list[Tensor] = []
        for each in self.tensors:
            ends = [each] if isinstance(each, Tensor) else [way.end() for way in each]
            tensor = ends[0]
            if not isinstance(tensor, Tensor) or any(end is not tensor for end in ends[1:]):
                return None
            found.append(tensor)
        return found

    def changed(self) -> str | None:
        """The first value that is another now."""
        if self._watch.still():
            return None
        for value in self.values:
            change = value.changed()
            if change:
                return change
        return None


def captures(roots: Sequence[object], tensors: Sequence[Tensor]) -> Captures:
    """How to come from the ``roots`` to these tensors again, and to all else that may change."""
    wanted = {id(tensor): None for tensor in tensors}
    ways: dict[int, list[Way]] = {}
    values: list[Seen] = []
    for way, value in _found(roots):
        if isinstance(value, Tensor):
            if id(value) in wanted:
                ways.setdefault(id(value), []).append(way)
        elif way.watched and not isinstance(value, ModuleType):
            values.append(Seen(way.settled(), value, mark_of(value), describe(value)))
    return Captures(tuple(_kept(tensor, ways) for tensor in tensors), tuple(values))


def _kept(tensor: Tensor, ways: Mapping[int, Sequence[Way]]) -> tuple[Way, ...] | Tensor:
    """The ways to a tensor that may lead elsewhere; those that are surely read, if there are."""
    mutable = [way for way in ways.get(id(tensor), ()) if way.mutable]
    read = [way for way in mutable if way.read]
    return tuple(way.settled() for way in read or mutable[:1]) or tensor


def _found(roots: Sequence[object]) -> list[tuple[Way, object]]:
    """All that the roots lead to, nearest first."""
    names: set[str] = set()
    while True:
        size = len(names)
        found = list(_walk(roots, names))
        if len(names) == size:
            return found


def _walk(roots: Sequence[object], names: set[str]) -> Iterator[tuple[Way, object]]:
    """The same, for these names of attributes, to which those in the code on the way are added."""
    queue = [(Way(root, ()), root) for root in roots]
    seen: set[int] = set()
    for way, value in queue:
        yield way, value
        if isinstance(value, (Tensor, *PLAIN)) or id(value) in seen or len(seen) > _LIMIT:
            continue
        seen.add(id(value))
        for step in _steps(value, names):
            try:
                queue.append((Way(way.start, (*way.steps, step)), step.take(value)))
            except GONE:
                continue


def _steps(value: object, names: set[str]) -> Iterator[Step]:
    """The steps that lead on from a value."""
    if type(value).__module__.startswith(_COMPILER):
        # Graphs, and all that belongs to them.
        if hasattr(value, "__wrapped__"):
            yield _WRAPPED
    elif isinstance(value, FunctionType):
        yield from _of_function(value, names)
    elif isinstance(value, MethodType):
        yield Step("", lambda method: method.__self__, False)
        yield Step("", lambda method: method.__func__, False)
    elif isinstance(value, partial):
        yield Step("", lambda each: each.func, False)
        yield Step(".args", lambda each: each.args, False)
        yield Step(".keywords", lambda each: each.keywords, False)
    elif isinstance(value, Mapping):
        yield from (_item(key, isinstance(value, dict)) for key in list(value))
    elif isinstance(value, (tuple, list)):
        yield from (_item(i, isinstance(value, list)) for i in range(len(value)))
    elif isinstance(value, (ModuleType, type)):
        yield from _of_namespace(value, names)
    elif not isinstance(value, BuiltinFunctionType):
        yield from _of_instance(value, names)


_WRAPPED: Final = Step("", lambda each: each.__wrapped__, False)


def _of_function(function: FunctionType, names: set[str]) -> Iterator[Step]:
    code, own = function.__code__, not _is_library(function.__globals__.get("__name__"))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield Step(f" {name}", partial(_content, cell=cell), own)
    if hasattr(function, "__wrapped__"):
        yield _WRAPPED
    if not own:
        return
    read = _names_in(code)
    names |= read
    for name in sorted(read & function.__globals__.keys()):
        yield Step(f" {name}", partial(_global, name=name), True)
    for i, _ in enumerate(function.__defaults__ or ()):
        yield Step(f" default {i}", partial(_default, index=i), False)
    for name in function.__kwdefaults__ or ():
        yield Step(f" default {name}", partial(_keyword_default, name=name), False)


def _names_in(code: CodeType) -> set[str]:
    """The globals and attributes that a piece of code names, that of inner functions included."""
    inner = [_names_in(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _content(_: object, cell: CellType) -> object:
    return cell.cell_contents


def _global(function: FunctionType, name: str) -> object:
    return function.__globals__[name]


def _default(function: FunctionType, index: int) -> object:
    return (function.__defaults__ or ())[index]


def _keyword_default(function: FunctionType, name: str) -> object:
    return (function.__kwdefaults__ or {})[name]


def _item(key: object, mutable: bool) -> Step:
    return Step(f"[{key!r}]", itemgetter(key), mutable)


def _of_namespace(owner: ModuleType | type, names: set[str]) -> Iterator[Step]:
    """What is named of the user's own modules and classes."""
    kinds = owner.__mro__ if isinstance(owner, type) else (owner,)
    for each in kinds:
        if not _is_library(each.__module__ if isinstance(each, type) else each.__name__):
            for name in sorted((names | _CALLED) & vars(each).keys()):
                mutable = not (isinstance(owner, type) and hasattr(vars(each)[name], "__get__"))
                yield Step(f".{name}", partial(_attribute_of, owner=each, name=name), mutable)


def _attribute_of(value: object, owner: object, name: str) -> object:
    """An attribute of a module or class: the function itself where it is wrapped in one.

    An instance may have got one of its own in the meantime.
    """
    own = getattr(value, "__dict__", {})
    found = own[name] if name in own else vars(owner)[name]
    if isinstance(found, property):
        return found.fget
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def _of_instance(value: object, names: set[str]) -> Iterator[Step]:
    kind: Any = type(value)
    frozen, library = is_frozen(value), _is_library(kind.__module__)
    own = [*getattr(value, "__dict__", ())]
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        own += [slots] if isinstance(slots, str) else slots
    for name in dict.fromkeys(own):
        named = frozen or (name in names and not library)
        read = named or (isinstance(value, nn.Module) and name in _PARTS)
        # Distributions and declarations are taken for values: who wants another makes another.
        mutable = not frozen and (not library or isinstance(value, nn.Module))
        yield Step(f".{name}", _getter(value, name), mutable, read)
    yield from _of_namespace(kind, names)


# Called without being named.
_CALLED = frozenset({"__call__", "forward"})
# What a layer's `forward` reads beside numbers that stay.
_PARTS = frozenset({"_modules", "training"})


def _getter(value: object, name: str) -> Callable[[Any], object]:
    """How to take an attribute, never a property: in C, if nothing of its kind comes between."""
    kind: Any = type(value)
    plain = kind.__getattribute__ is object.__getattribute__
    if plain and not hasattr(getattr(kind, name, None), "__set__"):
        return attrgetter(name)
    return partial(_attribute, name=name)


def _attribute(owner: object, name: str) -> object:
    found = getattr(owner, "__dict__", {})
    return found[name] if name in found else object.__getattribute__(owner, name)


def _is_library(module: object) -> bool:
    """Whether a module, by its dotted name, is torch's, Pyro's, ours or Python's own."""
    return str(module or "").partition(".")[0] in _LIBRARIES
