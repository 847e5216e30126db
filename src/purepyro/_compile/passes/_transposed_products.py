"""Matrix products of few columns, computed in the transposed layout.

A vector register holds 8 or 16 values. A layer of 50 units leaves the last one of each row nearly
empty, and each row ends in a sum across a register. With the rows of a batch along the registers
neither happens. So such a product is taken as $(B^T A^T)^T$, and what is done to its elements
one by one is done before it is transposed back.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from ..._compat._tracing import UNSAFE_VIEW, aten, is_pointwise, value_of
from ._materialize import MATERIALIZE

# Values in a register; processors with shorter ones lose little by counting so.
_LANES = 16
# It pays from so many rows on, as long as they stay in the processor's cache: a transpose reads it
# once more.
_MANY = 64
_CACHE = 1 << 21
# How much of the registers of a row may be empty.
_EMPTY = 0.1


def with_transposed_products(graph: fx.Graph) -> None:
    """Transpose the matrix products on the CPU that have few columns, and what follows them."""
    transposed: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(value_of(node), Tensor):
            continue
        with graph.inserting_before(node):
            found = _transposed(graph, node, transposed)
            if found is None:
                continue
            found.meta = {**node.meta, "val": _swapped(value_of(node))}
            back = _transpose(graph, found, value_of(node))
        back.meta = dict(node.meta)
        transposed[back] = found
        node.replace_all_uses_with(back)
        graph.erase_node(node)


def _transposed(
    graph: fx.Graph, node: fx.Node, transposed: dict[fx.Node, fx.Node]
) -> fx.Node | None:
    """The transpose of a node's result, if it should be computed so."""
    value = value_of(node)
    target: Any = node.target
    if target in (aten.mm.default, aten.bmm.default) and _is_tall(value):
        left, right = (_transpose(graph, each, value_of(each)) for each in _operands(node))
        return graph.call_function(target, (right, left))
    before = next((each for each in node.all_input_nodes if each in transposed), None)
    if before is None or value_of(before).shape != value.shape:
        return None
    if target in _SAME:
        return transposed[before]
    if is_pointwise(node) or target is MATERIALIZE:
        return graph.node_copy(node, lambda each: _operand(graph, each, transposed))
    return None


def _operands(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    left: Any = node.args[0]
    right: Any = node.args[1]
    return left, right


# Which change nothing where the shape stays the same.
_SAME = frozenset({aten.view.default, aten.expand.default, UNSAFE_VIEW, aten.reshape.default})


def _is_tall(value: Tensor) -> bool:
    rows, columns = value.shape[-2:]
    empty = -columns % _LANES / (columns + -columns % _LANES)
    fits = rows >= _MANY and value.nbytes <= _CACHE
    return value.device.type == "cpu" and fits and 1 < columns <= rows and empty > _EMPTY


def _operand(graph: fx.Graph, node: fx.Node, transposed: dict[fx.Node, fx.Node]) -> fx.Node:
    value = value_of(node)
    if node in transposed:
        return transposed[node]
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
