"""What is done to matrices in a graph leaves its results as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx

from purepyro import random
from purepyro._compat._tracing import aten, graph_of, value_of
from purepyro._compile.passes._tanh import with_quick_tanh
from purepyro._compile.passes._transposed_products import with_rows_innermost
from purepyro._compile.passes._triangles import with_selected_triangles

PRODUCTS = (aten.mm.default, aten.bmm.default)


def rewritten(
    rewrite: Callable[[fx.Graph], None], fn: Callable[..., object], *inputs: Tensor
) -> fx.GraphModule:
    module = graph_of(fn, inputs)
    rewrite(module.graph)
    module.graph.lint()
    module.recompile()
    return module


def normals(key: random.Key, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [random.normal(random.fold_in(key, i), *shape) for i, shape in enumerate(shapes)]


def shapes_of(module: fx.GraphModule, *operators: object) -> list[list[int]]:
    nodes = [node for node in module.graph.nodes if node.target in operators]
    return [list(value_of(node).shape) for node in nodes]


def layer(x: Tensor, weight: Tensor, bias: Tensor, on: Tensor, last: Tensor) -> list[Tensor]:
    """Operands of all kinds: of as many dimensions, of one, of none, and flags."""
    product = x @ weight
    hidden = torch.where(on, (product + bias).tanh() * bias.sum(), 0.5)
    return [hidden @ last, hidden.sum(-1), product, hidden.mT, hidden.reshape(-1)]


@pytest.mark.parametrize("outer", [(), (3,)])
def test_products_of_few_columns_have_their_rows_side_by_side(
    outer: tuple[int, ...], key: random.Key
) -> None:
    x, weight, bias, last = normals(key, (*outer, 100, 7), (*outer, 7, 5), (5,), (*outer, 5, 2))
    inputs = x, weight, bias, x[..., :5] > 0, last
    module = rewritten(with_rows_innermost, layer, *inputs)
    assert shapes_of(module, *PRODUCTS) == [[*outer, 5, 100], [*outer, 2, 100]]
    # All that is done to the numbers one by one is done in that layout.
    pointwise = aten.add.Tensor, aten.tanh.default, aten.mul.Tensor, aten.where.self
    assert [shape[-2:] for shape in shapes_of(module, *pointwise)] == [[5, 100]] * 4
    for found, expected in zip(module(*inputs), layer(*inputs), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_keep_the_layout(key: random.Key) -> None:
    x, weight, last = normals(key, (100, 7), (7, 5), (5, 1))

    def loss(weight: Tensor) -> Tensor:
        return ((x @ weight).tanh() @ last).square().sum()

    def both(graph: fx.Graph) -> None:
        with_rows_innermost(graph)
        with_quick_tanh(graph)

    slope: Callable[..., Tensor] = torch.func.grad(loss)
    module = rewritten(both, slope, weight)
    assert shapes_of(module, aten.tanh_backward.default) == [[5, 100]]
    torch.testing.assert_close(module(weight), slope(weight))


@pytest.mark.parametrize(
    "shape",
    [(40, 5), (100, 1), (100, 16), (100, 63), (3, 100), (1 << 18, 5)],
    ids=["few rows", "one column", "whole vectors", "nearly whole", "wide", "beyond the cache"],
)
def test_other_products_stay(shape: tuple[int, int]) -> None:
    x, weight = torch.ones(shape[0], 2), torch.ones(2, shape[1])
    module = rewritten(with_rows_innermost, torch.matmul, x, weight)
    assert shapes_of(module, *PRODUCTS) == [list(shape)]


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 5])
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 5), (5, 2)])
def test_triangles(shape: tuple[int, ...], offset: int, key: random.Key) -> None:
    (x,) = normals(key, shape)
    x[..., 0, -1] = torch.nan

    def triangles(x: Tensor) -> list[Tensor]:
        return [torch.tril(x, offset), torch.triu(x, diagonal=offset), x.tril().tril(-1).mT]

    module = rewritten(with_selected_triangles, triangles, x)
    assert not shapes_of(module, aten.tril.default, aten.triu.default)
    for found, expected in zip(module(x), triangles(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3)])
def test_the_gradient_of_a_diagonal(shape: tuple[int, ...], key: random.Key) -> None:
    def slope(x: Tensor) -> Tensor:
        found: Tensor = torch.func.grad(lambda x: x.diagonal(dim1=-2, dim2=-1).square().sum())(x)
        return found

    (x,) = normals(key, shape)
    module = rewritten(with_selected_triangles, slope, x)
    assert not shapes_of(module, aten.diagonal_backward.default)
    torch.testing.assert_close(module(x), slope(x), rtol=0, atol=0)


def test_other_diagonals_and_triangles_stay() -> None:
    def others(x: Tensor, counts: Tensor) -> list[Tensor]:
        beside = torch.func.grad(lambda x: x.diagonal(1).square().sum())(x)
        return [beside, counts.tril()]

    inputs = torch.arange(12.0).view(3, 4), torch.arange(9).view(3, 3)
    module = rewritten(with_selected_triangles, others, *inputs)
    assert len(shapes_of(module, aten.diagonal_backward.default, aten.tril.default)) == 2
    for found, expected in zip(module(*inputs), others(*inputs), strict=True):
        assert torch.equal(found, expected)
