"""Short texts of values for people: models, settings, states, results.

Tensors appear as ``float32[3, 2]``, functions by their names, settings only where they differ from
their defaults. No text needs Python's stack, since modules may lie deeper than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple, TypeGuard

import attrs
from torch import Tensor

from .._errors import describe

_PACKAGE = f"{__name__.partition('.')[0]}."

Opened = tuple[str, list[tuple[str, object]], str]
"""How the text of a container begins, what is in it by its label, and how it ends."""


class _Verbatim(str):
    """A piece of text that is to appear as it is."""

    __slots__ = ()


def text_of(value: object, open_: Callable[[object], Opened | None] = lambda _: None) -> str:
    """The text of a value.

    Args:
        value: Anything.
        open_: Opens a container of a kind of its own; ``None`` for all others.
    """
    pieces, todo = list[str](), list[object]([value])
    while todo:
        each = todo.pop()
        if isinstance(each, _Verbatim):
            pieces.append(each)
            continue
        opened = open_(each) or _opened(each)
        if opened is None:
            pieces.append(_text_of_leaf(each))
            continue
        opening, entries, closing = opened
        todo.append(_Verbatim(closing))
        for place, (label, entry) in reversed(list(enumerate(entries))):
            todo += [entry, _Verbatim(f"{', ' if place else ''}{label}")]
        todo.append(_Verbatim(opening))
    return "".join(pieces)


def settings_of(owner: object) -> str:
    """The text of an instance of an attrs class: its name, and what was set of its fields."""

    def opened(value: object) -> Opened | None:
        kind = type(value)
        if value is not owner and not (attrs.has(kind) and kind.__module__.startswith(_PACKAGE)):
            return None
        return f"{kind.__name__}(", [(f"{n}=", given) for n, given in _set_fields(value)], ")"

    return text_of(owner, opened)


def tensors_text(tensors: Mapping[str, Tensor]) -> str:
    """The first few of some tensors by name, with their shapes."""
    shown = [f"{name!r}: {describe(tensors[name])}" for name in [*tensors][:_SHOWN]]
    more = len(tensors) - len(shown)
    return "{" + ", ".join([*shown, *([f"... {more} more"] if more else [])]) + "}"


_SHOWN = 6


def number_text(value: Tensor) -> str:
    """A single value as a number; as dtype and shape where it has none to show.

    There is none under a transform, where it stands for many, nor while a graph is traced.
    """
    try:
        return f"{value.item():,.4g}" if value.is_floating_point() else f"{value.item():,}"
    except (RuntimeError, ValueError):
        return describe(value)


def ends_of(losses: Tensor) -> str:
    """How many losses a run has, with the first and the last; means over members."""
    if not losses.numel():
        return "no steps"
    first, last = (number_text(end.detach().mean()) for end in (losses[0], losses[-1]))
    return f"{len(losses):,} steps, loss {first} to {last}"


def table_of(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table in HTML, as notebooks show it."""
    cells = [head, *rows]
    lines = [
        "<tr>" + "".join(f"<{tag} style='text-align: left'>{escape(c)}</{tag}>" for c in row)
        for tag, row in zip(["th", *["td"] * (len(cells) - 1)], cells, strict=True)
    ]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"


def _set_fields(owner: object) -> list[tuple[str, object]]:
    found = list[tuple[str, object]]()
    kind: Any = type(owner)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(kind)
    for field in fields:
        value = getattr(owner, field.name)
        if field.repr and not (field.default is value or _equal(field.default, value)):
            found.append((field.name, value))
    return found


def _equal(a: object, b: object) -> bool:
    plain = (str, int, float, bool, tuple, dict, type(None))
    return isinstance(a, plain) and isinstance(b, plain) and type(a) is type(b) and a == b


def _opened(value: object) -> Opened | None:
    if type(value) is dict:
        return "{", [(f"{name!r}: ", entry) for name, entry in value.items()], "}"
    if type(value) is list:
        return "[", [("", entry) for entry in value], "]"
    if type(value) is tuple:
        return "(", [("", entry) for entry in value], ",)" if len(value) == 1 else ")"
    if _is_named_tuple(value) and type(value).__repr__ is tuple.__repr__:
        return _fields_of(value)
    return None


def _is_named_tuple(value: object) -> TypeGuard[NamedTuple]:
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def _fields_of(value: NamedTuple) -> Opened:
    entries = [(f"{name}=", entry) for name, entry in zip(value._fields, value, strict=True)]
    return f"{type(value).__name__}(", entries, ")"


def _text_of_leaf(value: object) -> str:
    if isinstance(value, Tensor):
        return describe(value)
    if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
        return f"{type(value).__name__}(...)"  # an optimiser: functions made by functions
    if isinstance(value, partial):
        return f"partial({_text_of_leaf(value.func)}, ...)"
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str):
        return name.rpartition("<locals>.")[2]
    return repr(value)
