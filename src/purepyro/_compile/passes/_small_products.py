"""Small products of matrices, as sums that are fused with what is around them.

A call of a matrix library costs a microsecond or two, and ends a fused kernel before it and begins
one after it: more than a small product itself.
"""

from __future__ import annotations

from torch import fx

from ..._compat._tracing import aten, value_of

# Up to so many multiplications a product is small.
_SMALL = 1 << 13


def with_small_products_fused(graph: fx.Graph) -> None:
    """Replace the small products of matrices on the CPU."""
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.bmm.default):
            continue
        left, right = node.args
        rows = value_of(left)
        if rows.device.type != "cpu" or rows.numel() * value_of(right).shape[-1] > _SMALL:
            continue
        if not rows.dtype.is_floating_point:
            continue
        with graph.inserting_before(node):
            wide = graph.call_function(aten.unsqueeze.default, (left, -1))
            tall = graph.call_function(aten.unsqueeze.default, (right, -3))
            terms = graph.call_function(aten.mul.Tensor, (wide, tall))
            found = graph.call_function(aten.sum.dim_IntList, (terms, [-2]))
        found.meta = dict(node.meta)
        for each in (wide, tall, terms):
            each.meta["val"] = _shape_after(each)
        node.replace_all_uses_with(found)
        graph.erase_node(node)


def _shape_after(node: fx.Node) -> object:
    """The (fake) tensor that an operation gives on those of its arguments."""
    args = [value_of(each) if isinstance(each, fx.Node) else each for each in node.args]
    assert callable(node.target)
    return node.target(*args)
