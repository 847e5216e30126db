"""Triangles and diagonals of matrices as selections, which are fused with what is around them.

Inductor counts the places of a triangle in 64 bits, two vectors for each one of float32, and writes
a diagonal into a buffer of zeros. Both are at work behind every Cholesky factor: its gradient has
three triangles and a diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, value_of


def with_selected_triangles(graph: fx.Graph) -> None:
    """Replace the triangles of real matrices, and what the gradient of a main diagonal is."""
    for node in list(graph.nodes):
        known = value_of(node)
        if not isinstance(known, Tensor) or not known.dtype.is_floating_point:
            continue
        with graph.inserting_before(node):
            found = _selected(graph, node)
        if found is not None:
            found.meta = dict(node.meta)
            node.replace_all_uses_with(found)
            graph.erase_node(node)


def _selected(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    args: Any = node.args
    given: Any = {"diagonal": 0, **node.kwargs}
    offset = args[1] if len(args) > 1 else given["diagonal"]
    if node.target is aten.tril.default:
        return _where(graph, aten.le.Tensor, offset, args[0], value_of(node))
    if node.target is aten.triu.default:
        return _where(graph, aten.ge.Tensor, offset, args[0], value_of(node))
    if node.target is aten.diagonal_backward.default:
        numbers, shape, *place = args
        if place in ([0, -2, -1], [0, len(shape) - 2, len(shape) - 1]) and shape[-1] == shape[-2]:
            wide = graph.call_function(aten.unsqueeze.default, (numbers, -1))
            return _where(graph, aten.eq.Tensor, 0, wide, value_of(node))
    return None


def _where(
    graph: fx.Graph, test: Callable[..., object], offset: int, matrix: fx.Node, like: Tensor
) -> fx.Node:
    """``matrix`` where its column and its row, moved by ``offset``, pass the test; else zero."""
    rows, columns = like.shape[-2:]
    kind: Any = {"dtype": torch.int32, "device": like.device}
    down = graph.call_function(aten.arange.start, (offset, offset + rows), kind)
    tall = graph.call_function(aten.unsqueeze.default, (down, -1))
    along = graph.call_function(aten.arange.default, (columns,), kind)
    passed = graph.call_function(test, (along, tall))
    return graph.call_function(aten.where.ScalarOther, (passed, matrix, 0.0))
