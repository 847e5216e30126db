"""Ways to values: whether they lead where they led before.

A way starts at a function, or at what it leads to for good, and takes a step at a time: an
attribute, an item, a name. Ways that begin with the same steps take them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any, Final, NamedTuple

import attrs
from torch import Tensor, nn

from ..._errors import describe

# Values that a program may read while it is traced, so that the graph holds for them only.
PLAIN = (bool, int, float, complex, str, bytes, type(None))

# A step that leads nowhere any more ends in one of these.
GONE = (AttributeError, KeyError, IndexError, TypeError, ValueError)

# What of a container must stay the same, beside itself.
_CONTENTS: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (dict, tuple),
    (list, len),
    (set, frozenset),
)


@attrs.frozen
class Step:
    """One step on the way.

    Attributes:
        name: What it is called.
        take: How to take it.
        mutable: Whether it may lead elsewhere by the next call.
        read: Whether the function may read what is there.
    """

    name: str
    take: Callable[[Any], object]
    mutable: bool
    read: bool = True


@attrs.frozen
class Way:
    """The way from a function to something that it captured.

    Attributes:
        start: Where it starts.
        steps: The steps from there.
        before: What led to the start, in words.
    """

    start: object
    steps: tuple[Step, ...]
    before: str = ""

    def settled(self) -> Way:
        """The same way without the first steps, which lead where they led for good."""
        here, steps, before = self.start, self.steps, self.before
        while steps and not steps[0].mutable:
            here, steps, before = steps[0].take(here), steps[1:], before + steps[0].name
        return Way(here, steps, before)

    def end(self) -> object:
        """What is there now; ``None`` if the way is gone."""
        here = self.start
        try:
            for step in self.steps:
                here = step.take(here)
        except GONE:
            return None
        return here

    @property
    def mutable(self) -> bool:
        """Whether something else may be there by the next call."""
        return any(step.mutable for step in self.steps)

    @property
    def watched(self) -> bool:
        """Whether the last step may lead elsewhere, and the function may read what is there."""
        return bool(self.steps) and self.steps[-1].mutable and self.read

    @property
    def read(self) -> bool:
        """Whether the function may read what is there."""
        return all(step.read for step in self.steps)

    @property
    def name(self) -> str:
        """The way in words, such as ``model.scale``."""
        return (self.before + "".join(step.name for step in self.steps)).strip(" .")


@attrs.frozen
class Seen:
    """Something that is no tensor, as it was."""

    way: Way
    value: object
    mark: object
    text: str

    def changed(self) -> str | None:
        """What has become of it, if it is another now."""
        now = self.way.end()
        if now is self.value and _contents_of(now) is None:
            return None
        if mark_of(now) == self.mark:
            return None
        return f"{self.way.name} was {self.text} and is {describe(now)}"


class _Leg(NamedTuple):
    """One step of all ways that take it there.

    Attributes:
        place: Where it starts: which of the starts, or, counted on from these, of the legs before.
        take: How to take it.
        value: What is behind it.
        look: How to look into that; ``None``: there is nothing to see.
        contents: What was in it.
    """

    place: int
    take: Callable[[Any], object]
    value: object
    look: Callable[[Any], object] | None
    contents: object


class Watch:
    """Whether values are what they were, found in one walk over all their ways.

    That is asked at every call of a compiled function, and so made for speed: what is not the very
    same object counts as another, and how it differs is for :meth:`Seen.changed` to say.
    """

    def __init__(self, values: Sequence[Seen]) -> None:
        starts = {id(seen.way.start): seen.way.start for seen in values}
        self._starts = list(starts.values())
        self._legs: list[_Leg] = []
        for place, start in enumerate(self._starts):
            self._add([seen for seen in values if seen.way.start is start], 0, place)

    def still(self) -> bool:
        """Whether all are, for sure."""
        found = self._starts.copy()
        try:
            for place, take, value, look, contents in self._legs:
                now = take(found[place])
                if now is not value and value is not _ANYTHING:
                    return False
                if look is not None and look(now) != contents:
                    return False
                found.append(now)
        except GONE:
            return False
        return True

    def _add(self, values: Sequence[Seen], depth: int, place: int) -> None:
        """What goes on from a place where these ways have met."""
        steps = {id(seen.way.steps[depth]): seen.way.steps[depth] for seen in values}
        for step in steps.values():
            here = [seen for seen in values if seen.way.steps[depth] is step]
            ends = [seen.value for seen in here if len(seen.way.steps) == depth + 1]
            value = ends[0] if ends else _ANYTHING
            look = _contents_of(value)
            self._legs.append(_Leg(place, step.take, value, look, look and look(value)))
            on = [seen for seen in here if len(seen.way.steps) > depth + 1]
            self._add(on, depth + 1, len(self._starts) + len(self._legs) - 1)


_ANYTHING: Final = object()


def _contents_of(value: object) -> Callable[[Any], object] | None:
    return next((look for kind, look in _CONTENTS if isinstance(value, kind)), None)


def mark_of(value: object) -> object:
    """What must be the same by the next call; ways lead on to what is in containers and objects."""
    if isinstance(value, Tensor):
        return Tensor
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, FunctionType):
        given = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return value.__code__, tuple(map(mark_of, given))
    if isinstance(value, partial):
        return mark_of(value.func), mark_of(value.args), tuple(map(mark_of, value.keywords.items()))
    contents = _contents_of(value)
    if contents is not None:
        return contents, contents(value)
    if isinstance(value, tuple):
        return type(value), tuple(map(mark_of, value))
    if isinstance(value, nn.Module):
        return type(value), value.extra_repr()
    if callable(value) or is_frozen(value):
        return id(value)
    # The ways lead on to its attributes; if it has none, it is a value of its kind (a dtype).
    return type(value) if hasattr(value, "__dict__") else (type(value), _hashable(value))


def _hashable(value: object) -> object:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def is_frozen(value: object) -> bool:
    """Whether the attributes of a value stay: those of frozen attrs and data classes do."""
    kind: Any = type(value)
    if attrs.has(kind):
        return kind.__setattr__ is not object.__setattr__
    settings = getattr(kind, "__dataclass_params__", None)
    return settings is not None and bool(settings.frozen)
