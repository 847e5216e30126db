"""Objects of the user's as they were before a run, to be put back when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributions import Transform

_CONTAINERS = (dict, list, set)


class Snapshot:
    """The attributes of objects, and what is in the containers among these.

    A network that is registered while a model runs computes on itself: it may leave results of the
    run, or caches of its transforms, in its attributes. :meth:`restore` takes them out again.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[object, dict[str, object], list[tuple[Any, Any]]]] = {}

    def keep(self, owner: object) -> None:
        """Remember the attributes of an object as they are now, at the first time."""
        if id(owner) in self._kept:
            return
        attributes = dict(vars(owner))
        inside = [
            (v, v.copy() if v else ()) for v in attributes.values() if isinstance(v, _CONTAINERS)
        ]
        self._kept[id(owner)] = owner, attributes, inside

    def keep_network(self, net: nn.Module) -> None:
        """Remember a network and all its layers."""
        for module in net.modules():
            self.keep(module)

    def keep_caches(self, fn: object) -> None:
        """Remember the transforms of a distribution that keep what they computed last."""
        while fn is not None:
            attributes = vars(fn) if hasattr(fn, "__dict__") else {}
            if attributes.get("transforms"):
                for transform in _caching(attributes["transforms"], set()):
                    self.keep(transform)
            fn = attributes.get("base_dist")

    def restore(self) -> None:
        """Put everything back."""
        for owner, attributes, inside in self._kept.values():
            own = vars(owner)
            if own.keys() != attributes.keys() or any(
                own[k] is not v for k, v in attributes.items()
            ):
                own.clear()
                own.update(attributes)
            for container, before in inside:
                if not _same(container, before):
                    container.clear()
                    if before:
                        add = container.extend if isinstance(container, list) else container.update
                        add(before)


def _same(container: Any, before: Any) -> bool:
    if not before or len(container) != len(before):
        return len(container) == len(before)
    if isinstance(container, dict):
        return all(
            a is c and b is d
            for (a, b), (c, d) in zip(container.items(), before.items(), strict=True)
        )
    return all(a is b for a, b in zip(container, before, strict=True))


def _caching(value: object, seen: set[int]) -> Iterator[Transform]:
    """The transforms with a cache among some, or within them."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _caching(item, seen)
    elif isinstance(value, Transform) and id(value) not in seen:
        seen.add(id(value))
        if getattr(value, "_cache_size", 0):
            yield value
        for part in vars(value).values():
            yield from _caching(part, seen)
