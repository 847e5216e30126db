"""Where a function finds what is not among its arguments.

A graph takes the tensors that it captured as inputs, so their numbers are always those of the call.
If a name, an attribute or an item holds another tensor by then, that one is taken: the way from the
function to each captured tensor is remembered, as far as it leads over things that can change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
from torch import Tensor

_LIMIT = 20_000  # objects to look at

# Values that a program may read while it is traced, so that the graph holds for them only.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@attrs.frozen
class Step:
    """One step on the way: what it is called, how to take it, and whether it may lead elsewhere."""

    name: str
    take: Callable[[Any], object]
    mutable: bool

    @property
    def is_variable(self) -> bool:
        """Whether the step is to a variable of a function's surroundings."""
        return self.mutable and self.name.startswith(" ")


@attrs.frozen
class Way:
    """The way from a function to something that it captured."""

    start: object
    steps: tuple[Step, ...]

    def end(self) -> object:
        """What is there now; ``None`` if the way is gone."""
        here = self.start
        try:
            for step in self.steps:
                here = step.take(here)
        except (AttributeError, KeyError, IndexError, ValueError):
            return None
        return here

    @property
    def mutable(self) -> bool:
        """Whether something else may be there by the next call."""
        return any(step.mutable for step in self.steps)

    @property
    def name(self) -> str:
        """The way in words, such as ``model.scale``."""
        return "".join(step.name for step in self.steps).lstrip(".")


@attrs.frozen
class Captures:
    """What a function captured: ways to tensors, and the plain values in its closures."""

    tensors: tuple[Way | Tensor, ...]
    values: tuple[tuple[Way, object], ...]

    def current(self) -> list[Tensor] | None:
        """The captured tensors as they are now; ``None`` if one is none any more."""
        found: list[Tensor] = []
        for each in self.tensors:
            tensor = each.end() if isinstance(each, Way) else each
            if not isinstance(tensor, Tensor):
                return None
            found.append(tensor)
        return found

    def changed(self) -> str | None:
        """The first plain value that is another now."""
        for way, value in self.values:
            now = way.end()
            if type(now) is not type(value) or (now != value and now == now):
                return f"{way.name} was {value!r} and is {now!r}"
        return None


def captures(roots: Sequence[object], tensors: Sequence[Tensor]) -> Captures:
    """How to come from the ``roots`` to these tensors again."""
    wanted = {id(tensor): None for tensor in tensors}
    ways: dict[int, Way] = {}
    values: list[tuple[Way, object]] = []
    for way, value in _walk(roots):
        if isinstance(value, Tensor):
            if id(value) in wanted:
                ways.setdefault(id(value), way)
        elif isinstance(value, _PLAIN) and way.steps and way.steps[-1].is_variable:
            values.append((way, value))
    found = [ways.get(id(tensor)) for tensor in tensors]
    return Captures(
        tuple(
            way if way is not None and way.mutable else tensor
            for way, tensor in zip(found, tensors, strict=True)
        ),
        tuple(values),
    )


def _walk(roots: Sequence[object]) -> Iterator[tuple[Way, object]]:
    """All that the roots lead to, each once, nearest first."""
    queue = [(Way(root, ()), root) for root in roots]
    seen: set[int] = set()
    for way, value in queue:
        if not isinstance(value, _PLAIN):
            if id(value) in seen or len(seen) > _LIMIT:
                continue
            seen.add(id(value))
        yield way, value
        for step in _steps(value):
            try:
                queue.append((Way(way.start, (*way.steps, step)), step.take(value)))
            except (AttributeError, KeyError, IndexError, ValueError):
                continue


def _steps(value: object) -> Iterator[Step]:
    """The steps that lead on from a value."""
    if isinstance(value, (Tensor, ModuleType, type, BuiltinFunctionType, *_PLAIN)):
        return
    if type(value).__module__.startswith(__package__ or "?"):
        return  # graphs, and all that belongs to them
    if isinstance(value, FunctionType):
        yield from _of_function(value)
    elif isinstance(value, MethodType):
        yield Step("", lambda method: method.__self__, False)
        yield Step("", lambda method: method.__func__, False)
    elif isinstance(value, functools.partial):
        yield Step("", lambda each: each.func, False)
        yield Step(".args", lambda each: each.args, False)
        yield Step(".keywords", lambda each: each.keywords, False)
    elif isinstance(value, Mapping):
        yield from (_item(key, isinstance(value, dict)) for key in list(value))
    elif isinstance(value, (tuple, list)):
        yield from (_item(i, isinstance(value, list)) for i in range(len(value)))
    else:
        yield from _of_instance(value)


def _of_function(function: FunctionType) -> Iterator[Step]:
    code, own = function.__code__, not _is_library(function)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        yield Step(f" {name}", functools.partial(_content, cell=cell), own)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield Step("", lambda each: each.__wrapped__, False)
    if not own:
        return
    for name in code.co_names:
        if name in function.__globals__:
            yield Step(f" {name}", functools.partial(_global, name=name), True)
    for i, _ in enumerate(function.__defaults__ or ()):
        yield Step(f" default {i}", functools.partial(_default, index=i), False)


def _content(_: object, cell: CellType) -> object:
    return cell.cell_contents


def _global(function: FunctionType, name: str) -> object:
    return function.__globals__[name]


def _default(function: FunctionType, index: int) -> object:
    return (function.__defaults__ or ())[index]


def _item(key: object, mutable: bool) -> Step:
    return Step(f"[{key!r}]", lambda container: container[key], mutable)


def _of_instance(value: object) -> Iterator[Step]:
    frozen = _is_frozen(value)
    names = [*getattr(value, "__dict__", ())]
    kind: Any = type(value)
    if attrs.has(kind):
        names += [field.name for field in attrs.fields(kind) if field.name not in names]
    for name in names:
        yield Step(f".{name}", functools.partial(_attribute, name=name), not frozen)


def _attribute(owner: object, name: str) -> object:
    found = getattr(owner, "__dict__", {})
    return found[name] if name in found else object.__getattribute__(owner, name)


def _is_frozen(value: object) -> bool:
    """Whether the attributes of a value stay: those of a frozen attrs class do."""
    setter: object = type(value).__setattr__
    return attrs.has(type(value)) and setter is not object.__setattr__


def _is_library(function: FunctionType) -> bool:
    """Whether a function is torch's, Pyro's or ours, whose globals are their own business."""
    package = (function.__module__ or "").partition(".")[0]
    return package in ("torch", "pyro", "purepyro", "torchopt", "optree")
