"""Between which numbers an integer tensor of a graph lies, as far as that follows from the graph.

Indices that the random library draws, positions that ``argmax`` and ``sort`` give, and what is
computed from an ``arange`` are in range whatever the data: they need no check at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, value_of

# The smallest and the largest number, both included.
Bounds: TypeAlias = tuple[int, int]

# Beyond it sums might overflow.
_LARGEST = 1 << 62

# Results that hold numbers of their arguments, and no others.
_SELECTIONS = frozenset(
    {
        "alias",
        "as_strided",
        "cat",
        "clone",
        "detach",
        "diagonal",
        "expand",
        "flip",
        "gather",
        "index",
        "index_select",
        "kept",
        "lift_fresh_copy",
        "permute",
        "repeat",
        "reshape",
        "roll",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "take",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
        "_unsafe_view",
    }
)
# Those of which only some arguments give numbers; the others say where they lie.
_FIRST_ONLY = frozenset({"gather", "index", "index_select", "take"})
# Operators that give positions in a dimension, and which of their results does.
_POSITIONS = {"sort": 1, "topk": 1, "max": 1, "min": 1, "median": 1, "mode": 1, "kthvalue": 1}
_BEST = frozenset({"argmax", "argmin"})


def bounds(node: fx.Node, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    """The bounds of a node's numbers, if the graph tells; ``known`` holds those found before."""
    if node not in known:
        known[node] = None
        found = _found(node, known)
        if found is not None and _fits(found, value_of(node).dtype):
            known[node] = found
    return known[node]


def _fits(found: Bounds, dtype: torch.dtype) -> bool:
    """Whether no number has wrapped around."""
    if dtype is torch.bool:
        return True
    limits = torch.iinfo(dtype)
    return max(limits.min, -_LARGEST) <= found[0] and found[1] <= min(limits.max, _LARGEST)


def _found(node: fx.Node, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    value = value_of(node)
    if node.op != "call_function" or not isinstance(value, Tensor):
        return None
    if value.dtype is torch.bool:
        return 0, 1
    if value.dtype.is_floating_point or value.dtype.is_complex:
        return None
    if node.target is getitem:
        return _one_of_many(node, known)
    return _of_operator(node, known)


def _name(node: fx.Node) -> str:
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    return "" if schema is None else str(schema.name).partition("::")[2]


def _one_of_many(node: fx.Node, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    source: Any = node.args[0]
    name = _name(source)
    if _POSITIONS.get(name) == node.args[1]:
        return 0, max(0, _length(source) - 1)
    return _union(source, known) if name in _SELECTIONS else None


def _length(node: fx.Node) -> int:
    """The length of the dimension that an operator looks through; all, if it may be any."""
    given: Any = node.args[0]
    return max([1, *map(int, value_of(given).shape)])


def _of_operator(node: fx.Node, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    name, args = _name(node), node.args
    if node.target is aten.view.dtype:  # the same bits, other numbers
        return None
    if name in _SELECTIONS:
        return _union(node, known)
    if name in _BEST:
        given: Any = args[0]
        return 0, max(0, value_of(given).numel() - 1)
    if name == "argsort":
        return 0, max(0, _length(node) - 1)
    if name == "arange":
        return _of_range(node)
    if name in ("zeros", "zeros_like", "new_zeros"):
        return 0, 0
    if name in ("full", "full_like", "scalar_tensor"):
        number = args[0] if name == "scalar_tensor" else args[1]
        return (number, number) if isinstance(number, int) else None
    if name == "_to_copy":
        return _narrowed(args[0], value_of(node), known)
    if name in _ARITHMETIC and not node.kwargs:
        return _ARITHMETIC[name](*(_of_argument(each, known) for each in args[:3]))
    if name == "where":
        return _joined([_of_argument(each, known) for each in args[1:3]])
    return None


def _of_range(node: fx.Node) -> Bounds | None:
    numbers = [arg for arg in node.args if isinstance(arg, int)]
    if len(numbers) != len(node.args) or not 1 <= len(numbers) <= 3:
        return None
    start, stop = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    taken = range(start, stop, *numbers[2:])
    return (min(taken), max(taken)) if taken else (0, 0)


def _narrowed(given: object, value: Tensor, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    """The bounds after a change of the dtype, which may not lose anything."""
    found = _of_argument(given, known)
    return found if found is not None and _fits(found, value.dtype) else None


def _of_argument(given: object, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    if isinstance(given, fx.Node):
        return bounds(given, known)
    return (int(given), int(given)) if isinstance(given, int) else None


def _union(node: fx.Node, known: dict[fx.Node, Bounds | None]) -> Bounds | None:
    """Of all tensors that a selection takes its numbers from."""
    sources: Any = node.args[0]
    if not isinstance(sources, (tuple, list)):
        sources = [sources] if _name(node) in _FIRST_ONLY else node.all_input_nodes
    return _joined([_of_argument(each, known) for each in sources])


def _joined(found: list[Bounds | None]) -> Bounds | None:
    whole = [each for each in found if each is not None]
    if not whole or len(whole) < len(found):
        return None
    return min(low for low, _ in whole), max(high for _, high in whole)


def _sum(one: Bounds | None, other: Bounds | None, *_: object) -> Bounds | None:
    return None if one is None or other is None else (one[0] + other[0], one[1] + other[1])


def _difference(one: Bounds | None, other: Bounds | None, *_: object) -> Bounds | None:
    return None if one is None or other is None else (one[0] - other[1], one[1] - other[0])


def _product(one: Bounds | None, other: Bounds | None, *_: object) -> Bounds | None:
    if one is None or other is None:
        return None
    corners = [a * b for a in one for b in other]
    return min(corners), max(corners)


def _remainder(_: Bounds | None, by: Bounds | None, *__: object) -> Bounds | None:
    return (0, by[1] - 1) if by is not None and by[0] > 0 else None


def _mask(one: Bounds | None, other: Bounds | None, *_: object) -> Bounds | None:
    limits = [each[1] for each in (one, other) if each is not None and each[0] >= 0]
    return (0, min(limits)) if limits else None


def _clamp(
    one: Bounds | None, low: Bounds | None = None, high: Bounds | None = None, *_: object
) -> Bounds | None:
    lows = [each[0] for each in (one, low) if each is not None]
    highs = [each[1] for each in (one, low) if each is not None]
    if high is None:
        return None if one is None else (max(lows), max(highs))
    # Where the limits cross, the upper one wins.
    return (min(max(lows), high[0]), high[1]) if lows else None


_ARITHMETIC: dict[str, Callable[..., Bounds | None]] = {
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "remainder": _remainder,
    "bitwise_and": _mask,
    "__and__": _mask,
    "clamp": _clamp,
}
