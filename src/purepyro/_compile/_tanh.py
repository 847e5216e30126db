r"""The hyperbolic tangent by an exponential, twice as fast as the library's.

.. math:: \tanh x = \mathrm{sign}(x) \left(1 - \frac{2}{e^{2|x|} + 1}\right)

loses digits near zero, where the first terms of the power series do; float32 to some 6e-7.
"""

from __future__ import annotations

import torch
from torch import fx

from ._boundary import aten, value_of

# Below, the next term of the series is less than the rounding of a float32.
_NEAR_ZERO = 0.2


def with_quick_tanh(graph: fx.Graph) -> None:
    """Replace the hyperbolic tangents of float32 tensors on the CPU."""
    for node in list(graph.nodes):
        if node.target is not aten.tanh.default:
            continue
        value = value_of(node)
        if value.dtype is not torch.float32 or value.device.type != "cpu":
            continue
        with graph.inserting_before(node):
            found = _tanh(graph, *node.all_input_nodes)
        found.meta = dict(node.meta)
        node.replace_all_uses_with(found)
        graph.erase_node(node)


def _tanh(graph: fx.Graph, x: fx.Node) -> fx.Node:
    def call(operator: object, *args: fx.Node | float) -> fx.Node:
        assert callable(operator)
        node = graph.call_function(operator, args)
        node.meta["val"] = value_of(x)
        return node

    size = call(aten.abs.default, x)
    power = call(aten.exp.default, call(aten.mul.Tensor, size, 2.0))
    below = call(aten.reciprocal.default, call(aten.add.Tensor, power, 1.0))
    far = call(aten.add.Tensor, call(aten.mul.Tensor, below, -2.0), 1.0)
    square = call(aten.mul.Tensor, x, x)
    series = call(aten.mul.Tensor, square, -17.0 / 315.0)
    for term in (2.0 / 15.0, -1.0 / 3.0):
        series = call(aten.mul.Tensor, square, call(aten.add.Tensor, series, term))
    near = call(aten.mul.Tensor, x, call(aten.add.Tensor, series, 1.0))
    is_near = call(aten.lt.Scalar, size, _NEAR_ZERO)
    is_near.meta["val"] = value_of(x).new_empty(value_of(x).shape, dtype=torch.bool)
    return call(aten.where.self, is_near, near, call(aten.copysign.Tensor, far, x))
