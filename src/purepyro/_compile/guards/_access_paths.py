"""How to come from a function to the values that it reads outside its arguments.

The walk follows closures, globals, defaults, attributes and items. Attributes count only if the
function, or one that it calls, names them; those of libraries are their own business.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import attrs
from torch import Tensor, nn

from ..._errors import TraceError

# Values that lead to no others.
PLAIN = (bool, int, float, complex, str, bytes, type(None))

# What an accessor may raise where there is nothing any more.
GONE = (AttributeError, KeyError, IndexError, TypeError, ValueError)

_COMPILER = f"{__name__.rpartition('.guards')[0]}."
_LIBRARIES = frozenset(
    {"attr", "attrs", "numpy", "optree", "purepyro", "pyro", "torch", "torchopt", "tqdm"}
    | sys.stdlib_module_names
)
_LIMIT = 100_000  # objects
# Called without being named.
_CALLED = frozenset({"__call__", "forward"})
# What a layer's `forward` reads beside tensors and settings.
_PARTS = frozenset({"_modules", "training"})


class Accessor(NamedTuple):
    """One step of a path.

    Attributes:
        name: What it is called in messages.
        take: Goes from a value to the next.
        mutable: Whether there may be another value by the next call.
        read: Whether the function may read what is there.
    """

    name: str
    take: Callable[[Any], object]
    mutable: bool
    read: bool = True


class AccessPath(NamedTuple):
    """The way to a value: another path, and one more step.

    Attributes:
        parent: The place of the other path among all; a root is its own parent.
        step: From there.
        value: What it leads to.
        name: In words, such as ``model.scale``.
        mutable: Whether any of the steps is.
        read: Whether all values on the way may be read.
    """

    parent: int
    step: Accessor
    value: object
    name: str
    mutable: bool
    read: bool


def access_paths(roots: Sequence[object]) -> list[AccessPath]:
    """The paths to all that the roots lead to, shortest first.

    Raises:
        TraceError: If it is too much to be looked through.
    """
    names: set[str] = set()
    while True:  # the code on the way names attributes, which lead to other code
        size = len(names)
        found = _walk(roots, names)
        if len(names) == size:
            return found


def is_frozen(value: object) -> bool:
    """Whether the attributes of a value stay: those of frozen attrs and data classes do."""
    kind: Any = type(value)
    if attrs.has(kind):
        return kind.__setattr__ is not object.__setattr__
    settings = getattr(kind, "__dataclass_params__", None)
    return settings is not None and bool(settings.frozen)


def _walk(roots: Sequence[object], names: set[str]) -> list[AccessPath]:
    start = Accessor("", lambda root: root, False)
    found = [AccessPath(i, start, root, "", False, True) for i, root in enumerate(roots)]
    seen: set[int] = set()
    place = 0
    while place < len(found):
        path, value = found[place], found[place].value
        if not isinstance(value, (Tensor, *PLAIN)) and id(value) not in seen:
            seen.add(id(value))
            for step in _accessors(value, names):
                try:
                    after = step.take(value)
                except GONE:
                    continue
                mutable, read = path.mutable or step.mutable, path.read and step.read
                name = path.name + step.name
                found.append(AccessPath(place, step, after, name, mutable, read))
        if len(seen) > _LIMIT:
            raise TraceError(
                f"The function given to jit leads, at `{path.name.strip(' .')}`, to more than "
                f"{_LIMIT:,} objects outside its arguments. They cannot all be watched, and a "
                "graph would not notice when one of them changes. Pass what the function needs as "
                "arguments, or have it captured by a smaller object."
            )
        place += 1
    return found


def _accessors(value: object, names: set[str]) -> Iterator[Accessor]:
    """The steps that lead on from a value; the names in its code are added to ``names``."""
    if type(value).__module__.startswith(_COMPILER):
        # Graphs, and all that belongs to them.
        if hasattr(value, "__wrapped__"):
            yield Accessor("", attrgetter("__wrapped__"), False)
    elif isinstance(value, FunctionType):
        yield from _of_function(value, names)
    elif isinstance(value, MethodType):
        yield Accessor("", attrgetter("__self__"), False)
        yield Accessor("", attrgetter("__func__"), False)
    elif isinstance(value, partial):
        for part in "func", "args", "keywords":
            yield Accessor(f".{part}", attrgetter(part), False)
    elif isinstance(value, Mapping):
        yield from (_item(key, isinstance(value, dict)) for key in list(value))
    elif isinstance(value, (tuple, list)):
        yield from (_item(i, isinstance(value, list)) for i in range(len(value)))
    elif isinstance(value, (ModuleType, type)):
        yield from _of_namespace(value, names)
    elif not isinstance(value, BuiltinFunctionType):
        yield from _of_instance(value, names)


def _item(key: object, mutable: bool) -> Accessor:
    return Accessor(f"[{key!r}]", itemgetter(key), mutable)


def _of_function(function: FunctionType, names: set[str]) -> Iterator[Accessor]:
    code, own = function.__code__, not _is_library(function.__globals__.get("__name__"))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield Accessor(f" {name}", partial(_content, cell=cell), own)
    if hasattr(function, "__wrapped__"):
        yield Accessor("", attrgetter("__wrapped__"), False)
    if own:
        read = _names_in(code)
        names |= read
        for name in sorted(read & function.__globals__.keys()):
            yield Accessor(f" {name}", partial(_global, name=name), True)
        yield Accessor(" default", attrgetter("__defaults__"), False)
        yield Accessor(" default", attrgetter("__kwdefaults__"), False)


def _content(_: object, cell: CellType) -> object:
    return cell.cell_contents


def _global(function: FunctionType, name: str) -> object:
    return function.__globals__[name]


def _names_in(code: CodeType) -> set[str]:
    """The globals and attributes that a piece of code names, that of inner functions included."""
    inner = [_names_in(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _of_namespace(owner: ModuleType | type, names: set[str]) -> Iterator[Accessor]:
    """What is named of the user's own modules and classes."""
    for each in owner.__mro__ if isinstance(owner, type) else (owner,):
        if not _is_library(each.__module__ if isinstance(each, type) else each.__name__):
            for name in sorted((names | _CALLED) & vars(each).keys()):
                mutable = not (isinstance(owner, type) and hasattr(vars(each)[name], "__get__"))
                take = partial(_attribute_of_namespace, owner=each, name=name)
                yield Accessor(f".{name}", take, mutable)


def _attribute_of_namespace(value: object, owner: object, name: str) -> object:
    """An attribute of a module or class: the function itself where it is wrapped in one.

    An instance may have got one of its own in the meantime.
    """
    own = getattr(value, "__dict__", {})
    found = own[name] if name in own else vars(owner)[name]
    if isinstance(found, property):
        return found.fget
    return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found


def _of_instance(value: object, names: set[str]) -> Iterator[Accessor]:
    kind: Any = type(value)
    frozen, library = is_frozen(value), _is_library(kind.__module__)
    own = [*getattr(value, "__dict__", ())]
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        own += [slots] if isinstance(slots, str) else slots
    for name in dict.fromkeys(own):
        named = frozen or (name in names and not library)
        read = named or (isinstance(value, nn.Module) and name in _PARTS)
        # Distributions and declarations are values: they are replaced, not changed.
        mutable = not frozen and (not library or isinstance(value, nn.Module))
        yield Accessor(f".{name}", _getter(value, name), mutable, read)
    yield from _of_namespace(kind, names)


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
