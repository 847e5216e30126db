"""Draws in graphs: traced by make_fx, compiled by Inductor."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro import random
from purepyro.random._bits import _host, _philox_operators

Traced = Callable[..., tuple[Tensor, ...]]


def _draws(key: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
    one = random.Key(key)
    keys = random.split(one, 9)
    with random.keyed(random.Key(keys[0])):
        dropped = torch.nn.functional.dropout(torch.ones(20, device=key.device))
    gamma = dist.Gamma(rate, 1.0, validate_args=False)
    return (
        _philox_operators.lanes(one, torch.arange(5), "words"),
        _philox_operators.lanes(random.name_key(one, "weight"), 0, "words"),
        random.uniform(random.Key(keys[1]), 33),
        random.uniform(random.Key(keys[2]), 7, dtype=torch.float64),
        random.bits(random.Key(keys[3]), 7, dtype=torch.int64),
        random.randint(random.Key(keys[4]), 7, high=10),
        random.permutation(random.Key(keys[5]), 8),
        dropped,
        random.normal(random.Key(keys[6]), 33),
        random.normal(random.Key(keys[7]), 7, dtype=torch.float64),
        random.sample(random.Key(keys[8]), gamma),
    )


@pytest.fixture(scope="module")
def arguments() -> tuple[Tensor, Tensor]:
    # The seed has its top bit set and the offset is at the end of its range: sums carry and wrap.
    return torch.tensor([-(2**63) + 12345, -3]), torch.tensor([0.3, 2.0, 50.0])


@pytest.fixture(scope="module")
def graph(arguments: tuple[Tensor, Tensor]) -> GraphModule:
    return make_fx(_draws)(*arguments)


def test_a_trace_has_the_bits_of_eager(
    graph: GraphModule, arguments: tuple[Tensor, Tensor]
) -> None:
    _, rate = arguments
    for key in (arguments[0], random.key(3)):
        for found, wanted in zip(graph(key, rate), _draws(key, rate), strict=True):
            assert torch.equal(found, wanted)


def test_a_trace_bakes_no_key(graph: GraphModule) -> None:
    assert not [node for node in graph.graph.nodes if node.op == "get_attr" and "key" in node.name]
    large = [name for name, value in graph.named_buffers() if value.numel() > 1]
    assert not large


def test_fake_tensors_trace(arguments: tuple[Tensor, Tensor]) -> None:
    traced = make_fx(_draws, tracing_mode="fake")(*arguments)
    for found, wanted in zip(traced(*arguments), _draws(*arguments), strict=True):
        assert torch.equal(found, wanted)


def _compiled_draws(key: Tensor) -> tuple[Tensor, ...]:
    one = random.Key(key)
    with random.keyed(random.name_key(one, "drop")):
        dropped = torch.nn.functional.dropout(torch.ones(20, device=key.device))
    return (
        _philox_operators.lanes(one, torch.arange(5), "words"),
        random.split(one, 3),
        random.uniform(one, 33),
        random.bits(random.name_key(one, "bits"), 7, dtype=torch.int64),
        dropped,
        random.normal(random.fold_in(one, 7), 33),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inductor_has_the_bits_of_eager(arguments: tuple[Tensor, Tensor]) -> None:
    start = arguments[0]
    compiled: Traced = getattr(torch, "_inductor").compile(  # noqa: B009
        make_fx(_compiled_draws)(start), [start]
    )
    for key in (start, random.key(3)):
        *exact, normal = compiled(key)
        *wanted, expected = _compiled_draws(key)
        for one, other in zip(exact, wanted, strict=True):
            assert torch.equal(one, other)
        torch.testing.assert_close(normal, expected)
    zero = compiled(torch.zeros(2, dtype=torch.int64))[0][0]
    assert zero.tolist() == list(_host.block(0, 0))
