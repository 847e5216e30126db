"""Products of few columns, laid out so that rows lie side by side.

A vector of the processor holds 8 or 16 numbers. A layer of 50 units leaves the last vector of each
row nearly empty, and each row ends in a sum across a vector. With the rows of a batch along the
vectors neither happens. So such a product is taken as :math:`(B^T A^T)^T`, and what is done to its
numbers one by one is done before it is turned back.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..._compat._tracing import aten, is_pointwise, value_of
from ._materialize import KEPT

# Numbers in a vector; processors with shorter ones lose little by counting so.
_LANES = 16
# From so many rows on it is worth it, and while they stay in the processor's cache: turned round,
# they are gone through once more.
_MANY = 64
_CACHE = 1 << 21
# How much of the vectors of a row may be empty.
_EMPTY = 0.1


def with_rows_innermost(graph: fx.Graph) -> None:
    """Turn the products of matrices on the CPU that have few columns, and what follows them."""
    turned: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(value_of(node), Tensor):
            continue
        with graph.inserting_before(node):
            found = _turned(graph, node, turned)
            if found is None:
                continue
            found.meta = {**node.meta, "val": _swapped(value_of(node))}
            back = _transpose(graph, found, value_of(node))
        back.meta = dict(node.meta)
        turned[back] = found
        node.replace_all_uses_with(back)
        graph.erase_node(node)


def _turned(graph: fx.Graph, node: fx.Node, turned: dict[fx.Node, fx.Node]) -> fx.Node | None:
    """The transpose of a node's result, if it should be computed so."""
    value = value_of(node)
    target: Any = node.target
    if target in (aten.mm.default, aten.bmm.default) and _is_tall(value):
        left, right = (_transpose(graph, each, value_of(each)) for each in _operands(node))
        return graph.call_function(target, (right, left))
    before = next((each for each in node.all_input_nodes if each in turned), None)
    if before is None or value_of(before).shape != value.shape:
        return None
    if target in _SAME:
        return turned[before]
    if is_pointwise(node) or target is KEPT:
        return graph.node_copy(node, lambda each: _operand(graph, each, turned))
    return None


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    left: Any = node.args[0]
    right: Any = node.args[1]
    return left, right


# Which change nothing where the shape stays the same.
_SAME = frozenset(
    {aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.reshape.default}
)


def _is_tall(value: Tensor) -> bool:
    rows, columns = value.shape[-2:]
    empty = -columns % _LANES / (columns + -columns % _LANES)
    fits = rows >= _MANY and value.nbytes <= _CACHE
    return value.device.type == "cpu" and fits and 1 < columns <= rows and empty > _EMPTY


def _operand(graph: fx.Graph, node: fx.Node, turned: dict[fx.Node, fx.Node]) -> fx.Node:
    value = value_of(node)
    if node in turned:
        return turned[node]
    if value.dim() == 1:
        found = graph.call_function(aten.unsqueeze.default, (node, -1))
        found.meta["val"] = value.unsqueeze(-1)
        return found
    return _transpose(graph, node, value) if value.dim() else node


def _transpose(graph: fx.Graph, node: fx.Node, value: Tensor) -> fx.Node:
    found = graph.call_function(aten.transpose.int, (node, -2, -1))
    found.meta["val"] = value.transpose(-2, -1)
    return found


def _swapped(value: Tensor) -> Tensor:
    return value.new_empty(value.mT.shape)
