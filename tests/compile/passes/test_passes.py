"""Each change that is made to a graph leaves its results as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from purepyro import random
from purepyro._compat._tracing import aten, graph_of
from purepyro._compile.passes._graph import outputs_of
from purepyro._compile.passes._linalg_checks import without_checks
from purepyro._compile.passes._materialize import KEPT
from purepyro._compile.passes._merge_draws import with_joint_draws
from purepyro._compile.passes._pack import Pack
from purepyro._compile.passes._small_products import with_small_products_fused
from purepyro._compile.passes._tanh import with_quick_tanh
from purepyro._compile.scan._partition import Roles, frontier, packed
from purepyro.random._bits._philox_operators import OPERATOR, as_nodes


def graph(fn: Callable[..., object], *inputs: Tensor) -> fx.GraphModule:
    """The graph of ``fn``, with draws as single nodes."""
    with as_nodes():
        return graph_of(fn, inputs)


def count(module: fx.GraphModule, operator: object) -> int:
    return sum(node.target is operator for node in module.graph.nodes)


def test_draws_that_do_not_wait_for_one_another_are_one(key: random.Key) -> None:
    def draws(key: Tensor) -> list[Tensor]:
        names = [random.name_key(random.Key(key), name) for name in "abc"]
        return [random.normal(name, 3 + i) for i, name in enumerate(names)]

    module = graph(draws, key)
    joint = with_joint_draws(module)
    assert (count(module, OPERATOR), count(joint, OPERATOR)) == (6, 2)
    for found, expected in zip(joint(key), draws(key), strict=True):
        torch.testing.assert_close(found, expected)


def test_draws_of_several_blocks_and_kinds(key: random.Key) -> None:
    def draws(key: Tensor) -> list[Tensor]:
        first, second = random.split(random.Key(key))
        return [
            random.normal(random.Key(first), 9),
            random.normal(random.Key(second), 2, 5),
            random.normal(random.Key(first), 3, dtype=torch.float64),
            random.uniform(random.Key(second), 7),
            random.bits(random.Key(first), 3),
        ]

    for found, expected in zip(with_joint_draws(graph(draws, key))(key), draws(key), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 2)), ((5, 3, 4), (5, 4, 1))])
def test_small_products(shapes: tuple[tuple[int, ...], ...], key: random.Key) -> None:
    left, right = (random.normal(random.fold_in(key, i), s) for i, s in enumerate(shapes))
    module = graph(torch.matmul, left, right)
    with_small_products_fused(module.graph)
    module.recompile()
    assert count(module, aten.mm.default) + count(module, aten.bmm.default) == 0
    torch.testing.assert_close(module(left, right), left @ right)


def test_large_products_stay() -> None:
    left = torch.ones(200, 200)
    module = graph(torch.matmul, left, left)
    with_small_products_fused(module.graph)
    assert count(module, aten.mm.default) == 1


def test_tanh() -> None:
    near = torch.logspace(-30, -0.7, 5_000)
    x = torch.cat(
        [torch.linspace(-20.0, 20.0, 10_001), near, -near, torch.tensor([torch.inf, -0.0])]
    )
    module = graph(torch.tanh, x)
    with_quick_tanh(module.graph)
    module.recompile()
    assert (count(module, aten.tanh.default), count(module, KEPT)) == (0, 1)
    torch.testing.assert_close(module(x), torch.tanh(x), rtol=6e-7, atol=0)
    assert bool(module(torch.tensor([torch.nan])).isnan())
    assert module(torch.tensor([-0.0])).signbit()


def test_a_matrix_without_a_root_gives_nan() -> None:
    def root(matrix: Tensor) -> Tensor:
        found: Tensor = torch.linalg.cholesky(matrix)
        return found

    good, bad = torch.eye(2), -torch.eye(2)
    module = graph(root, torch.stack([good, good]))
    without_checks(module.graph)
    module.recompile()
    found = module(torch.stack([4 * good, bad]))
    torch.testing.assert_close(found[0], 2 * good)
    assert bool(found[1].isnan().all())


def adam(params: list[Tensor], moments: list[Tensor], clock: Tensor, x: Tensor) -> list[Tensor]:
    """A step like an optimiser's, on parameters of several shapes."""
    gradients = [params[0].exp() + x.sum(), params[1] * 2.0, params[2].sum().expand(2, 2)]
    after = [m * 0.9 + g * 0.1 for m, g in zip(moments, gradients, strict=True)]
    scale = 1 - torch.pow(0.9, clock + 1)
    return [*(p - m / scale for p, m in zip(params, after, strict=True)), *after, clock + 1]


def test_a_packed_step_is_the_step() -> None:
    shapes: list[tuple[int, ...]] = [(), (3,), (2, 2)]
    state = [torch.full(shape, 0.5 + i) for i, shape in enumerate(shapes * 2)]
    inputs = [*state, torch.tensor(4), torch.arange(5.0)]

    def step(*inputs: Tensor) -> list[Tensor]:
        params, moments = list(inputs[:3]), list(inputs[3:6])
        new = adam(params, moments, inputs[6], inputs[7])
        return [*new, new[0] * 2.0]

    module = graph(step, *inputs)
    found = packed(module.graph, 7, Roles.of(module.graph, 7))
    assert found.roles.counters == ((6,),)
    assert found.roles.learnt == (0, 1, 2, 3, 4, 5)
    assert found.pack == Pack(tuple(shapes * 2), ((0, 1, 2, 3, 4, 5),))
    assert len(frontier(found).ahead) == 1  # the correction of the moments
    vector = torch.cat([tensor.flatten() for tensor in state])
    alone: Any = fx.GraphModule(torch.nn.Module(), found.graph)
    new, recorded = alone(inputs[6], vector, inputs[7])
    expected = step(*inputs)
    torch.testing.assert_close(new, torch.cat([tensor.flatten() for tensor in expected[:6]]))
    torch.testing.assert_close(recorded, expected[7])
    products = [node for node in found.graph.nodes if node.target is aten.div.Tensor]
    assert len(products) == 1  # one for all parameters
    assert len(outputs_of(found.graph)) == 2


def test_one_number_for_all_parameters_is_repeated_once() -> None:
    """Of a single member, whose flag has a dimension: not one flag beside another."""
    shapes: list[tuple[int, ...]] = [(1, 1), (1, 3), (1, 2, 2)]
    inputs = [*(torch.full(shape, 0.5) for shape in shapes), torch.tensor([True])]

    def step(*inputs: Tensor) -> list[Tensor]:
        *params, alive = inputs
        wide = [alive.reshape([1] * param.dim()).expand(param.shape) for param in params]
        return [torch.where(w, p * 2.0, p) for w, p in zip(wide, params, strict=True)] + [inputs[1]]

    traced = graph(step, *inputs)
    found = packed(traced.graph, 3, Roles.of(traced.graph, 3))
    module: Any = fx.GraphModule(torch.nn.Module(), found.graph)
    assert count(module, aten.cat.default) == 0
    vector = torch.arange(8.0)
    for alive in (True, False):
        new, _ = module(vector, torch.tensor([alive]))
        torch.testing.assert_close(new, vector * (2.0 if alive else 1.0))


def test_kept_under_vmap() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(torch.vmap(KEPT, in_dims=1, out_dims=1)(x), x)
    assert KEPT(x) is not x
