"""What a compiled function captured, and whether it is still the same.

A graph takes the tensors that a function captured as inputs, so their elements are always those of
the call. If a name, an attribute or an item holds another tensor by then, that one is taken. What
is no tensor, and may change as well, is remembered as it was: if it is something else, the graph is
out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from ..._errors import describe
from ._access_paths import GONE, PLAIN, AccessPath, access_paths, is_frozen

# What of a container must stay the same, beside itself.
_CONTENTS: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (dict, tuple),
    (list, len),
    (set, frozenset),
)
_ANYTHING: Final = object()


class _Guard(NamedTuple):
    """One value that may be another by the next call.

    Attributes:
        parent: Where it is found: the place of a value before it.
        take: How.
        value: What it was; ``_ANYTHING`` if only what it leads to matters.
        look: How to look into it; ``None``: there is nothing to see.
        contents: What was in it.
        fingerprint: What makes another value as good.
        name: In words.
        text: It, in words.
    """

    parent: int
    take: Callable[[Any], object]
    value: object
    look: Callable[[Any], object] | None
    contents: object
    fingerprint: object
    name: str
    text: str


class Captures:
    """What a function captured, looked up in one walk, since every call of it asks.

    Args:
        roots: The function, and other objects that it is called with.
        tensors: The captured tensors.
    """

    def __init__(self, roots: Sequence[object], tensors: Sequence[Tensor]) -> None:
        paths = access_paths(roots)
        ends = [_ends(tensor, paths) for tensor in tensors]
        guarded = {i for i, path in enumerate(paths) if _is_guarded(path)}
        needed = guarded.union(*ends)
        for place in range(len(paths) - 1, -1, -1):  # parents come before children
            if place in needed and paths[place].mutable:
                needed.add(paths[place].parent)
        fixed = [place for place in sorted(needed) if not paths[place].mutable]
        moving = [place for place in sorted(needed) if paths[place].mutable]
        at = {place: i for i, place in enumerate([*fixed, *moving])}
        self._fixed = [paths[place].value for place in fixed]
        self._guards = [
            _guard(paths[place], at[paths[place].parent], place in guarded) for place in moving
        ]
        self._tensors = [
            (tensor, [at[place] for place in places])
            for tensor, places in zip(tensors, ends, strict=True)
        ]

    def current(self) -> list[Tensor] | None:
        """The captured tensors as they are now.

        ``None`` if something else has changed, one is no tensor any more, or what was one tensor
        under two names is two.
        """
        values = self._walk()
        if isinstance(values, str):
            return None
        found: list[Tensor] = []
        for tensor, places in self._tensors:
            now = values[places[0]] if places else tensor
            if not isinstance(now, Tensor) or any(values[place] is not now for place in places):
                return None
            found.append(now)
        return found

    def changed(self) -> str | None:
        """What was captured, is no tensor, and has changed."""
        found = self._walk()
        return found if isinstance(found, str) else None

    def _walk(self) -> list[object] | str:
        """The values as they are now; in words, what has changed."""
        found = self._fixed.copy()
        for parent, take, value, look, contents, fingerprint, name, text in self._guards:
            try:
                now = take(found[parent])
            except GONE:
                return f"{name} was {text} and is gone"
            found.append(now)
            if value is _ANYTHING or (now is value and (look is None or look(now) == contents)):
                continue
            if _fingerprint(now) != fingerprint:  # another object may be as good: an equal float
                return f"{name} was {text} and is {describe(now)}"
        return found


def _is_guarded(path: AccessPath) -> bool:
    """Whether the function may read what is there, and it is no tensor and may change."""
    return path.step.mutable and path.read and not isinstance(path.value, (Tensor, ModuleType))


def _ends(tensor: Tensor, paths: Sequence[AccessPath]) -> list[int]:
    """The paths to a tensor that may lead to another; those that are surely read, if there are."""
    mutable = [i for i, path in enumerate(paths) if path.value is tensor and path.mutable]
    return [i for i in mutable if paths[i].read] or mutable[:1]


def _guard(path: AccessPath, parent: int, guarded: bool) -> _Guard:
    value = path.value if guarded else _ANYTHING
    look = _look_into(value)
    contents = None if look is None else look(value)
    text = describe(path.value) if guarded or isinstance(path.value, Tensor) else "there"
    name = path.name.strip(" .")
    return _Guard(parent, path.step.take, value, look, contents, _fingerprint(value), name, text)


def _look_into(value: object) -> Callable[[Any], object] | None:
    return next((look for kind, look in _CONTENTS if isinstance(value, kind)), None)


def _fingerprint(value: object) -> object:
    """What must be the same; other paths lead on to what is in containers and objects."""
    if isinstance(value, Tensor):
        return Tensor
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, FunctionType):
        given = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return value.__code__, tuple(map(_fingerprint, given))
    if isinstance(value, partial):
        parts = (value.func, value.args, *value.keywords.items())
        return tuple(map(_fingerprint, parts))
    look = _look_into(value)
    if look is not None:
        return look, look(value)
    if isinstance(value, tuple):
        return type(value), tuple(map(_fingerprint, value))
    if isinstance(value, nn.Module):
        return type(value), value.extra_repr()
    if callable(value) or is_frozen(value):
        return id(value)
    # Paths lead on to its attributes; if it has none, it is a value of its kind (a dtype).
    return type(value) if hasattr(value, "__dict__") else (type(value), _hashable(value))


def _hashable(value: object) -> object:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
