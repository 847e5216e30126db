"""Runs can be traced into a graph, which is right for other keys and numbers too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torchopt import adam

from models import regression, regression_data
from purepyro import apply, init, log_density, random, trace
from purepyro.infer import SVI, AutoNormal


def traced(fn: Callable[..., object], *args: Tensor) -> Callable[..., object]:
    """The graph of ``fn``, made on ``args``."""
    make: Callable[..., Callable[..., object]] = make_fx(fn)
    return make(*args)


def test_a_run_and_its_record() -> None:
    model, (x, y) = regression(), regression_data()

    def run(scale: Tensor, key: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mean, record = trace(model, {"linear.scale": scale}, random.Key(key), x, y)
        return mean, record.log_density

    graph = traced(run, torch.tensor(0.0), random.key(0), x, y)
    other = torch.tensor(0.7), random.key(5), x + 1.0, y - 1.0
    torch.testing.assert_close(graph(*other), run(*other))


def test_a_gradient_over_members() -> None:
    model, (x, y) = regression(), regression_data()

    def loss(scale: Tensor, key: Tensor) -> Tensor:
        return trace(model, {"linear.scale": scale}, random.Key(key), x, y)[1].log_density

    step = torch.vmap(torch.func.grad(loss))
    keys = random.split(random.key(0), 3)
    graph = traced(step, torch.zeros(3), keys)
    other = torch.linspace(-1.0, 1.0, 3), random.split(random.key(9), 3)
    torch.testing.assert_close(graph(*other), step(*other))


def test_a_density_at_values() -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, random.key(0))

    def density(weight: Tensor, bias: Tensor, sigma: Tensor) -> Tensor:
        values = {"linear.weight": weight, "linear.bias": bias, "sigma": sigma}
        return log_density(model, params, values, x, y)

    graph = traced(density, torch.zeros(1, 3), torch.tensor(0.0), torch.tensor(1.0))
    other = torch.ones(1, 3), torch.tensor(0.5), torch.tensor(0.3)
    torch.testing.assert_close(graph(*other), density(*other))


def test_a_step_of_svi() -> None:
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), adam(0.01))
    trees: Any = optree  # whose types know no NamedTuple
    leaves, structure = trees.tree_flatten(svi.init(random.key(0), x, y))

    def step(*leaves: Tensor) -> tuple[list[Tensor], Tensor]:
        new, loss = svi.step(structure.unflatten(leaves), x, y)
        return trees.tree_leaves(new), loss

    graph = traced(step, *leaves)
    others = trees.tree_leaves(svi.run(random.key(3), 5, x, y).state)
    torch.testing.assert_close(graph(*others), step(*others))


def test_validation_is_back_after_a_trace() -> None:
    model, (x, _) = regression(), regression_data()
    key = random.key(0)
    params = init(model, key)
    traced(lambda x: apply(model, params, key, x), x)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)
