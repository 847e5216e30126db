"""Horizontal fusion: the same operation on several tensors, done on one vector.

An optimiser does to each parameter what it does to the next, and each small tensor costs a kernel.
The concatenation of ``f(a), f(b)`` is ``f`` of the concatenation of ``a, b`` where ``f`` works
element by element. Applied again and again, from the new parameters back to the gradients, this
leaves one vector where there were many tensors; and where the parts lie in one tensor already, side
by side or at equal distances, a slice of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, fx

from ..._compat._tracing import UNSAFE_VIEW, aten, is_pointwise, value_of
from ._graph import Builder, needed_by

# Views that keep the order of the elements.
_RESHAPES = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        UNSAFE_VIEW,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.default,
    }
)
_VIEWS = _RESHAPES | {
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.dims,
    aten.t.default,
    aten.transpose.int,
}
# How far back to look; what is further back is concatenated as it is.
_DEPTH = 100
# Of larger tensors it is not looked at where their elements lie.
_LARGE = 1 << 16


class HorizontalFuser:
    """Writes concatenations into a graph, by way of what the parts are computed from."""

    def __init__(self, builder: Builder) -> None:
        self._call = builder.call
        self._builder = builder
        self._done: dict[tuple[fx.Node, ...], fx.Node] = {}
        self._fusions: dict[tuple[fx.Node, ...], fx.Node] = {}
        self._places: dict[fx.Node, tuple[fx.Node, Tensor]] = {}

    def joined(self, nodes: Sequence[fx.Node], depth: int = _DEPTH) -> fx.Node:
        """The elements of ``nodes``, tensors of one dtype, one after another."""
        key = tuple(map(strip_reshapes, nodes))
        if key not in self._done:
            found = self._slice(key)
            if found is None and len(key) > 1 and depth and _are_alike(key):
                found = self._fusions[key] = self._fused(key, depth - 1)
            self._done[key] = found or self._concatenated(key, depth)
        return self._done[key]

    def share(self, outputs: Sequence[fx.Node]) -> None:
        """Let all use the vectors: a tensor that is a part of one is not computed by itself.

        Only where no other part of the vector needs it first.
        """
        for nodes, vector in self._fusions.items():
            live, before = needed_by(outputs, ()), needed_by([vector], ())
            start = 0
            for node in nodes:
                stop, shape = start + value_of(node).numel(), value_of(node).shape
                if node in live and not before.intersection([node, *node.users]):
                    node.replace_all_uses_with(self._builder.take(vector, start, stop, shape))
                start = stop

    def _slice(self, nodes: Sequence[fx.Node]) -> fx.Node | None:
        """The slice of a tensor that the elements of all ``nodes`` are, if they are one."""
        if sum(value_of(node).numel() for node in nodes) > _LARGE:
            return None
        seen = [self._seen(node) for node in nodes]
        base = seen[0][0]
        places = torch.cat([places.reshape(-1) for _, places in seen])
        steps = [*set(places.diff().tolist())]
        if any(each is not base for each, _ in seen) or len(steps) > 1 or min(steps, default=1) < 0:
            return None
        count, flat = len(places), base
        if value_of(base).dim() != 1:
            flat = self._call(aten.reshape.default, base, [-1])
        if steps in ([], [1]) and count == value_of(base).numel():
            return flat
        if not count:
            return None
        first, last, step = int(places[0]), int(places[-1]), max(1, *steps, 1)
        part = self._call(aten.slice.Tensor, flat, 0, first, last + 1, step)
        return self._call(aten.expand.default, part, [count]) if steps == [0] else part

    def _seen(self, node: fx.Node) -> tuple[fx.Node, Tensor]:
        """The tensor of which a node is a view, and where the node's elements lie in it."""
        if node not in self._places:
            below: Any = node.args[0] if node.target in _VIEWS else None
            if below is None or value_of(below).numel() > _LARGE:
                value = value_of(node)
                self._places[node] = node, torch.arange(value.numel()).reshape(value.shape)
            else:
                base, places = self._seen(below)
                # The places lie one after another, which the tensor itself may not.
                view: Any = torch.reshape if node.target is aten.view.default else node.target
                self._places[node] = base, view(places, *node.args[1:], **node.kwargs)
        return self._places[node]

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
            size = sum(value_of(node).numel() for node in nodes)
            return self._call(aten.expand.default, nodes[0], [size])
        target: Any = nodes[0].target
        return self._call(target, *args, **nodes[0].kwargs)

    def _concatenated(self, nodes: Sequence[fx.Node], depth: int) -> fx.Node:
        """Runs of one operation are fused, all else is put side by side."""
        runs = [list(run) for _, run in groupby(nodes, key=fusion_key)]
        if len(runs) in (1, len(nodes)):
            return self._builder.join(nodes)
        return self._builder.join([self.joined(run, depth) for run in runs])

    def _expanded(self, node: fx.Node, like: fx.Node) -> fx.Node:
        """An argument in the shape of the result."""
        shape = list(value_of(like).shape)
        same = list(value_of(node).shape) == shape
        return node if same else self._call(aten.expand.default, node, shape)


def strip_reshapes(node: fx.Node) -> fx.Node:
    """The node behind reshapes."""
    while node.target in _RESHAPES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def _are_alike(nodes: Sequence[fx.Node]) -> bool:
    """Whether ``nodes`` do the same element by element, to tensors of the same dtypes."""
    return is_pointwise(nodes[0]) and len(set(map(fusion_key, nodes))) == 1


def fusion_key(node: fx.Node) -> object:
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
