"""Neighbouring parts of a tensor are taken as one, and no number is drawn that nobody uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor, fx

from purepyro import random
from purepyro._compat._tracing import aten, graph_of
from purepyro._compile.passes._merge_draws import with_joint_draws
from purepyro._compile.passes._merge_slices import with_whole_parts
from purepyro.random._bits import _philox_operators
from purepyro.random._bits._philox_operators import OPERATOR, as_nodes


def changed(fn: Callable[..., object], *inputs: Tensor) -> fx.GraphModule:
    """The graph of ``fn``, with joint draws and whole parts."""
    with as_nodes():
        module = graph_of(fn, inputs)
    return with_whole_parts(graph_of(with_joint_draws(module), inputs))


def operators(module: fx.GraphModule) -> list[object]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def same(fn: Callable[..., Sequence[Tensor]], *inputs: Tensor) -> list[object]:
    """The operators of the changed graph, which computes what ``fn`` does."""
    module: Any = changed(fn, *inputs)
    torch.testing.assert_close(list(module(*inputs)), list(fn(*inputs)), rtol=0, atol=0)
    return operators(module)


BASE = torch.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize(
    ("parts", "cats"),
    [
        (lambda x: [x[0], x[1], x[2:].reshape(-1)], 0),
        (lambda x: [x[i, 2:3] for i in range(4)], 0),  # a column
        (lambda x: [x[1, :1], x[1, 3:4]], 0),
        (lambda x: [x[0, ::2], x[1, ::2]], 0),
        (lambda x: [x[0, :2], x[0, 3:], x[0, 3:]], 1),  # with a gap, and twice
        (lambda x: [x[1], x[0]], 1),  # the other way round
        (lambda x: [x[0], x[1] * 2.0], 1),
        (lambda x: [x[0], (x + 1.0)[1]], 1),
        (lambda x: [x[0, :1].expand(3), x[0, 1:2]], 1),
        (lambda x: [x[0, :0], x[0, :1], x[0, 1:2]], 1),
        (lambda x: [x[0].view(torch.int32), x[1].view(torch.int32)], 1),  # other numbers
        (lambda x: [x[0], x[1].to(torch.float64)], 1),
        (lambda x: [x[0], x[1], x[2].to(torch.int64)], 1),
    ],
)
def test_neighbours(parts: Callable[[Tensor], list[Tensor]], cats: int) -> None:
    assert same(lambda x: [torch.cat(parts(x))], BASE).count(aten.cat.default) == cats


def test_neighbours_among_others() -> None:
    def one(x: Tensor) -> list[Tensor]:
        return [torch.cat([x[0], x[1], x[3] + 1.0, x[1, 1:2], x[1, 3:4]])]

    module = changed(one, BASE)
    cat = next(node for node in module.graph.nodes if node.target is aten.cat.default)
    assert len(cast("list[fx.Node]", cat.args[0])) == 3
    same(one, BASE)


def test_rows_of_matrices() -> None:
    found = same(lambda x: [torch.cat([x[:1], x[1:3], x[3:].reshape(1, 6)])], BASE)
    assert aten.cat.default not in found
    found = same(lambda x: [torch.cat([x[:, :1], x[:, 1:2]], 1)], BASE)
    assert aten.cat.default in found


def test_what_is_done_to_each_is_done_to_all() -> None:
    counts = [torch.tensor(i) for i in range(3)]

    def ahead(row: Tensor, *counts: Tensor) -> list[Tensor]:
        return [torch.cat([(count + row).reshape(1) for count in counts])]

    assert same(ahead, torch.tensor(5), *counts).count(aten.add.Tensor) == 1


def draws(key: Tensor, sizes: Sequence[int], dtype: torch.dtype) -> list[Tensor]:
    """Of a site each, put side by side."""
    each = [
        random.normal(random.name_key(random.Key(key), f"site {i}"), size, dtype=dtype)
        for i, size in enumerate(sizes)
    ]
    return [torch.cat(each)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sites_with_a_single_number(dtype: torch.dtype, key: random.Key) -> None:
    module = changed(lambda key: draws(key, [1] * 5, dtype), key)
    drawn = [node.args[2] for node in module.graph.nodes if node.target is OPERATOR]
    assert drawn == ["keys", "wide_normal" if dtype is torch.float64 else "normal"]
    assert operators(module).count(aten.cat.default) == 2  # of the indices of keys, and of blocks
    same(lambda key: draws(key, [1] * 5, dtype), key)


@pytest.mark.parametrize("sizes", [[1, 1, 3, 1], [4, 4], [2, 2], [5, 1], [1]])
def test_sites_with_more(sizes: list[int], key: random.Key) -> None:
    found = changed(lambda key: draws(key, sizes, torch.float32), key)
    drawn = [node.args[2] for node in found.graph.nodes if node.target is OPERATOR]
    assert drawn[-1] == ("normals" if max(sizes) > 1 else "normal")
    same(lambda key: draws(key, sizes, torch.float32), key)


def test_a_draw_that_is_also_used_whole(key: random.Key) -> None:
    def both(key: Tensor) -> list[Tensor]:
        whole = random.normal(random.Key(key), 4)
        return [torch.cat([whole[:1], whole[:1] + 1.0]), whole * 2.0]

    assert not {"normal"} & {
        node.args[2] for node in changed(both, key).graph.nodes if node.target is OPERATOR
    }
    same(both, key)


def test_what_lies_in_large_tensors_is_not_looked_at() -> None:
    large = torch.zeros(1 << 17)
    assert aten.cat.default in same(lambda x: [torch.cat([x[:2], x[2:4]])], large)


@pytest.mark.parametrize(("many", "one"), list(_philox_operators.FIRST.items()))
def test_the_first_number(
    many: _philox_operators.Kind, one: _philox_operators.Kind, key: random.Key
) -> None:
    keys, index = random.split(key, 3), torch.arange(2)
    kinds: list[_philox_operators.Kind] = [one, many]
    first, whole = found = [_philox_operators.expanded(keys, index, kind) for kind in kinds]
    assert torch.equal(first, whole[..., :1])
    for kind, each in zip(kinds, found, strict=True):
        seen = _philox_operators._shapes(keys, index, kind)
        assert (seen.shape, seen.dtype) == (each.shape, each.dtype)


@pytest.mark.parametrize("kind", ["keys", "normals", "words"])
def test_planes(kind: _philox_operators.Kind, key: random.Key) -> None:
    keys, index = random.split(key, 3), torch.arange(2)
    found = _philox_operators.expanded_in_planes(keys, index, kind)
    assert torch.equal(found, _philox_operators.expanded(keys, index, kind))
