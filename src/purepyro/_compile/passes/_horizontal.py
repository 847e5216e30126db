"""Horizontal fusion: the same operation on several tensors, done on one vector.

An optimiser does to each parameter what it does to the next, and each small tensor costs a kernel.
The concatenation of ``f(a), f(b)`` is ``f`` of the concatenation of ``a, b`` where ``f`` works
element by element. Applied again and again, from the new parameters back to the gradients, this
leaves one vector where there were many tensors.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import fx

from ..._compat._tracing import aten, is_pointwise, value_of
from ._graph import Builder

# Views that keep the order of the elements.
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
# Those, and views that repeat elements.
_REPETITIONS = _RESHAPES | {aten.expand.default}
# How far back to look; what is further back is concatenated as it is.
_DEPTH = 100


class HorizontalFuser:
    """Writes concatenations into a graph, by way of what the parts are computed from."""

    def __init__(self, builder: Builder) -> None:
        self._call = builder.call
        self._done: dict[tuple[fx.Node, ...], fx.Node] = {}

    def joined(self, nodes: Sequence[fx.Node], depth: int = _DEPTH) -> fx.Node:
        """The elements of ``nodes``, tensors of one dtype, one after another."""
        key = tuple(map(_strip_views, nodes))
        if key not in self._done:
            found = self._whole_slice(key) or self._repeated(key)
            if found is None and len(key) > 1 and depth and _are_alike(key):
                found = self._fused(key, depth - 1)
            self._done[key] = found or self._concatenated(key, depth)
        return self._done[key]

    def _whole_slice(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """The slice of a vector that ``nodes`` are, if they lie in it side by side."""
        slices = [node.args if node.target is aten.slice.Tensor else () for node in nodes]
        vector, dim, start, end = slices[0] if len(slices[0]) == 4 else (None, None, 0, 0)
        for before, after in pairwise(slices):
            if len(after) != 4 or after[:3] != (vector, dim, before[3]):
                return None
            end = after[3]
        if not isinstance(vector, fx.Node) or value_of(vector).dim() != 1:
            return None
        if (start, end) == (0, value_of(vector).numel()):
            return vector
        return self._call(aten.slice.Tensor, vector, 0, start, end)

    def _repeated(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """One and the same element, again and again, if that is what all ``nodes`` are."""
        element = _strip_views(nodes[0], _REPETITIONS)
        if element is nodes[0] or value_of(element).numel() != 1:
            return None
        if any(_strip_views(node, _REPETITIONS) is not element for node in nodes):
            return None
        one = self._call(aten.reshape.default, element, [1])
        return self._call(aten.expand.default, one, [_count(nodes)])

    def _fused(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node:
        """The operation that ``nodes`` have in common, on the concatenations of its arguments."""
        args: list[Any] = []
        for column in zip(*(node.args for node in nodes), strict=True):
            if not isinstance(column[0], fx.Node) or (
                value_of(column[0]).dim() == 0 and all(each is column[0] for each in column)
            ):
                args.append(column[0])
            else:
                pairs = zip(column, nodes, strict=True)
                args.append(self.joined([self._expanded(a, like) for a, like in pairs], depth))
        if all(each is one for each, one in zip(args, nodes[0].args, strict=True)):
            # All arguments are shared scalars, and so are the results.
            return self._call(aten.expand.default, nodes[0], [_count(nodes)])
        target: Any = nodes[0].target
        return self._call(target, *args, **nodes[0].kwargs)

    def _concatenated(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node:
        """Runs of one operation are fused, all else is put side by side."""
        runs = [list(run) for _, run in groupby(nodes, key=_fusion_key)]
        if len(runs) in (1, len(nodes)):
            parts = [self._flat(node) for node in nodes]
        else:
            parts = [self.joined(run, depth) for run in runs]
        return parts[0] if len(parts) == 1 else self._call(aten.cat.default, parts)

    def _flat(self, node: fx.Node) -> fx.Node:
        value = value_of(node)
        return node if value.dim() == 1 else self._call(aten.reshape.default, node, [value.numel()])

    def _expanded(self, node: fx.Node, like: fx.Node) -> fx.Node:
        """An argument in the shape of the result."""
        shape = list(value_of(like).shape)
        same = list(value_of(node).shape) == shape
        return node if same else self._call(aten.expand.default, node, shape)


def _strip_views(node: fx.Node, views: Container[object] = _RESHAPES) -> fx.Node:
    """The node behind reshapes, or behind other ``views``."""
    while node.target in views and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _count(nodes: Sequence[fx.Node]) -> int:
    """How many elements ``nodes`` have together."""
    return sum(value_of(node).numel() for node in nodes)


def _are_alike(nodes: Sequence[fx.Node]) -> bool:
    """Whether ``nodes`` do the same element by element, to tensors of the same dtypes."""
    return is_pointwise(nodes[0]) and len(set(map(_fusion_key, nodes))) == 1


def _fusion_key(node: fx.Node) -> object:
    """All that nodes must share to be done as one."""
    if not is_pointwise(node):
        return node
    dtype = value_of(node).dtype
    alone = len(node.all_input_nodes) == 1
    args = []
    for each in node.args:
        if not isinstance(each, fx.Node):
            args.append(repr(each))
            continue
        value = value_of(each)
        # Beside another, a 0-d tensor does not decide the dtype of a result; a vector would.
        safe = alone or value.dtype in (dtype, torch.bool)
        args.append(str(value.dtype) if safe else f"{value.dtype} {id(each)}")
    return node.target, dtype, value_of(node).device, tuple(args), repr(node.kwargs)
