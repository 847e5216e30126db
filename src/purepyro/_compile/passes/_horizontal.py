"""The same operations on several tensors, done on one vector.

An optimiser does to each parameter what it does to the next, and each small tensor costs a kernel
and an allocation. The concatenation of ``f(a), f(b)`` is ``f`` of the concatenation of ``a, b``
where ``f`` works number by number. Applied again and again, from the new parameters back to the
gradients, this leaves one vector where there were many tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from ..._compat._tracing import aten, is_pointwise, value_of
from ._graph import Builder, needed_by

# Views that keep the order of the numbers.
_RESHAPES = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.default,
    }
)
# Those, and views that repeat numbers.
_REPETITIONS = _RESHAPES | {aten.expand.default}
# How far back to look; what is further back is concatenated as it is.
_DEPTH = 100


class Joiner:
    """Writes concatenations into a graph, by way of what the parts are made of."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._done: dict[tuple[fx.Node, ...], fx.Node] = {}
        self._joint: dict[tuple[fx.Node, ...], fx.Node] = {}
        self._pieces: dict[fx.Node, tuple[fx.Node, int, int]] = {}

    def piece(self, vector: fx.Node, start: int, shape: Sequence[int]) -> fx.Node:
        """The tensor of this shape that lies in a vector from ``start`` on."""
        stop = start + torch.Size(shape).numel()
        part = self._call(aten.slice.Tensor, (vector, 0, start, stop), vector, [stop - start])
        found = self._call(aten.reshape.default, (part, list(shape)), vector, shape)
        self._pieces[part] = (vector, start, stop)
        return found

    def joined(self, nodes: Sequence[fx.Node], depth: int = _DEPTH) -> fx.Node:
        """The numbers of ``nodes``, tensors of one dtype, one after another."""
        key = tuple(map(bare, nodes))
        if key not in self._done:
            self._done[key] = self._join(key, depth)
        return self._done[key]

    def share(self, outputs: Sequence[fx.Node]) -> None:
        """Let all use the vectors: a tensor that is a part of one is not computed by itself.

        Only where no other part of the vector needs it first.
        """
        for nodes, vector in self._joint.items():
            live = needed_by(outputs, ())
            before = needed_by([vector], ())
            start = 0
            for node in nodes:
                value = value_of(node)
                if node in live and not before.intersection([node, *node.users]):
                    node.replace_all_uses_with(self.piece(vector, start, value.shape))
                start += value.numel()

    def _join(self, nodes: tuple[fx.Node, ...], depth: int) -> fx.Node:
        found = self._whole_piece(nodes) or self._uniform(nodes) or self._repeated(nodes)
        if found is None and len(nodes) == 1:
            found = self._flat(nodes[0])
        if found is None and depth and _alike(nodes):
            found = self._joint[nodes] = self._done_once(nodes, depth - 1)
        if found is None and depth:
            found = self._spread(nodes, depth)
        if found is None:
            found = self._concatenated(nodes, depth)
        return found

    def _spread(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node | None:
        """Scalars that are computed alike, each repeated for the numbers of a tensor."""
        scalars = [_scalar_in(node) for node in nodes]
        found = [scalar for scalar in scalars if scalar is not None]
        if len(found) < len(nodes) or found == list(nodes) or not _alike(found):
            return None
        vector = self.joined(found, depth - 1)
        parts = []
        for i, node in enumerate(nodes):
            one = self._call(aten.slice.Tensor, (vector, 0, i, i + 1), vector, [1])
            size = [value_of(node).numel()]
            parts.append(self._call(aten.expand.default, (one, size), vector, size))
        size = [_count(nodes)]
        return self._call(aten.cat.default, (parts,), vector, size)

    def _whole_piece(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """The part of a vector that ``nodes`` are, if they lie in it side by side."""
        pieces = [self._pieces.get(node) for node in nodes]
        first, last = pieces[0], pieces[-1]
        if first is None or last is None:
            return None
        end = first[1]
        for each in pieces:
            if each is None or each[0] is not first[0] or each[1] != end:
                return None
            end = each[2]
        vector, start = first[0], first[1]
        if (start, end) == (0, value_of(vector).numel()):
            return vector
        part = self._call(aten.slice.Tensor, (vector, 0, start, end), vector, [end - start])
        self._pieces[part] = (vector, start, end)
        return part

    def _uniform(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """A vector of one and the same number, if ``nodes`` are."""
        numbers = {_number(node) for node in nodes}
        number = numbers.pop()
        if numbers or number is None:
            return None
        value = value_of(nodes[0])
        size = [_count(nodes)]
        named = {"dtype": value.dtype, "device": value.device}
        return self._call(aten.full.default, (size, number), nodes[0], size, named)

    def _repeated(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """One and the same number, again and again, if that is what all ``nodes`` are."""
        number = bare(nodes[0], _REPETITIONS)
        if number is nodes[0] or value_of(number).numel() != 1:
            return None
        if any(bare(node, _REPETITIONS) is not number for node in nodes):
            return None
        one = self._call(aten.reshape.default, (number, [1]), number, [1])
        size = [_count(nodes)]
        return self._call(aten.expand.default, (one, size), number, size)

    def _done_once(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node:
        """The operation that ``nodes`` have in common, on the concatenations of its arguments."""
        args: list[Any] = []
        for column in zip(*(node.args for node in nodes), strict=True):
            if not isinstance(column[0], fx.Node) or (
                value_of(column[0]).dim() == 0 and all(each is column[0] for each in column)
            ):
                args.append(column[0])
            else:
                pairs = zip(column, nodes, strict=True)
                args.append(self.joined([self._as_wide(a, like) for a, like in pairs], depth))
        size = [_count(nodes)]
        if all(each is one for each, one in zip(args, nodes[0].args, strict=True)):
            # All arguments are shared scalars, and so are the results.
            return self._call(aten.expand.default, (nodes[0], size), nodes[0], size)
        target: Any = nodes[0].target
        return self._call(target, args, nodes[0], size, nodes[0].kwargs)

    def _concatenated(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node:
        """Runs of one operation are joined, all else is put side by side."""
        runs = [list(run) for _, run in groupby(nodes, key=likeness)]
        if len(runs) in (1, len(nodes)):
            parts = [self._flat(node) for node in nodes]
        else:
            parts = [self.joined(run, depth) for run in runs]
        return self._call(aten.cat.default, (parts,), nodes[0], [_count(parts)])

    def _flat(self, node: fx.Node) -> fx.Node:
        value = value_of(node)
        if value.dim() == 1:
            return node
        return self._call(aten.reshape.default, (node, [value.numel()]), node, [value.numel()])

    def _as_wide(self, node: fx.Node, like: fx.Node) -> fx.Node:
        """An argument in the shape of the result."""
        shape = list(value_of(like).shape)
        if list(value_of(node).shape) == shape:
            return node
        return self._call(aten.expand.default, (node, shape), node, shape)

    def _call(
        self,
        target: Callable[..., object],
        args: Sequence[object],
        like: fx.Node,
        shape: Sequence[int],
        kwargs: Mapping[str, object] = MappingProxyType({}),
    ) -> fx.Node:
        node = self._builder.call(target, *args, **kwargs)
        node.meta["val"] = value_of(like).new_empty(list(shape))
        return node


_CONSTANTS: Mapping[object, float] = {
    aten.ones_like.default: 1.0,
    aten.zeros_like.default: 0.0,
    aten.ones.default: 1.0,
    aten.zeros.default: 0.0,
}


def _number(node: fx.Node) -> float | None:
    """The number of which a tensor is full, if that is seen."""
    if node.target in _CONSTANTS:
        return _CONSTANTS[node.target]
    if node.target is aten.neg.default or node.target is aten.expand.default:
        below: Any = node.args[0]
        number = _number(below)
        return -number if number is not None and node.target is aten.neg.default else number
    below = bare(node)
    return None if below is node else _number(below)


def bare(node: fx.Node, views: Container[object] = _RESHAPES) -> fx.Node:
    """The node behind reshapes, or behind other ``views``."""
    while node.target in views and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _count(nodes: Sequence[fx.Node]) -> int:
    """How many numbers ``nodes`` have together."""
    return sum(value_of(node).numel() for node in nodes)


def _scalar_in(node: fx.Node) -> fx.Node | None:
    """The scalar of which a node is, or is an expansion."""
    if node.target is aten.expand.default and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node if value_of(node).dim() == 0 else None


def _alike(nodes: Sequence[fx.Node]) -> bool:
    """Whether ``nodes`` do the same number by number, to tensors of the same dtypes."""
    first = nodes[0]
    return is_pointwise(first) and all(likeness(node) == likeness(first) for node in nodes)


def likeness(node: fx.Node) -> object:
    """All that nodes must share to be done as one."""
    if not is_pointwise(node):
        return node
    kind = value_of(node).dtype
    alone = len(node.all_input_nodes) == 1
    args = []
    for each in node.args:
        if not isinstance(each, fx.Node):
            args.append(repr(each))
            continue
        value = value_of(each)
        # Beside another, a 0-d tensor does not decide the dtype of a result; a vector would.
        safe = alone or value.dtype in (kind, torch.bool)
        args.append(str(value.dtype) if safe else f"{value.dtype} {id(each)}")
    return node.target, kind, value_of(node).device, tuple(args), repr(node.kwargs)
