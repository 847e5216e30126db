"""Law 5: gradients of ``torch.func`` are those of autograd, and no leaf's is silently zero."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from purepyro import Module, Prior, PyroParam, PyroSample, apply, init, log_density, random, trace

CASES: dict[str, tuple[Constraint, Tensor]] = {
    "real": (constraints.real, torch.tensor([0.3, -1.0])),
    "positive": (constraints.positive, torch.tensor([0.3, 2.0])),
    "softplus positive": (constraints.softplus_positive, torch.tensor([0.3, 2.0])),
    "unit interval": (constraints.unit_interval, torch.tensor([0.3, 0.8])),
    "interval": (constraints.interval(-1.0, 3.0), torch.tensor([0.3, 2.0])),
    "greater than": (constraints.greater_than(1.0), torch.tensor([1.3, 2.0])),
    "less than": (constraints.less_than(1.0), torch.tensor([0.3, -2.0])),
    "simplex": (constraints.simplex, torch.tensor([0.3, 0.5, 0.2])),
    "ordered": (constraints.ordered_vector, torch.tensor([0.3, 0.5, 0.9])),
    "lower cholesky": (constraints.lower_cholesky, torch.tensor([[1.0, 0.0], [0.5, 2.0]])),
    "corr cholesky": (
        constraints.corr_cholesky,
        torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
    ),
    "positive definite": (constraints.positive_definite, torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
}


class Everything(Module):
    """Parameters of a network, of a prior, and read directly."""

    net: nn.Module
    scale = PyroParam(torch.tensor(1.5), constraint=constraints.positive)
    shift = PyroParam(torch.tensor([0.1, 0.2]))

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(self.shift, self.scale).to_event(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mean: Tensor = self.net(x).squeeze(-1) + x @ self.weight
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, self.scale), obs=y)
        return mean


def _compare(params: dict[str, Tensor], loss: Callable[[dict[str, Tensor]], Tensor]) -> None:
    functional = torch.func.grad(loss)(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    gradients = torch.autograd.grad(loss(leaves), list(leaves.values()))
    for (name, got), expected in zip(functional.items(), gradients, strict=True):
        torch.testing.assert_close(got, expected)
        assert bool((got != 0).any()), name


def test_of_a_joint_log_density(key: random.Key) -> None:
    model = Everything(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
    x, y = random.normal(key, 5, 2), torch.ones(5)
    params = init(model, key)
    _, record = trace(model, params, key, x, y)
    _compare(params, lambda params: log_density(model, params, record.latents, x, y))


def test_through_a_draw(key: random.Key) -> None:
    model = Everything(nn.Linear(2, 1))
    x, y = random.normal(key, 5, 2), torch.ones(5)
    _compare(init(model, key), lambda params: trace(model, params, key, x, y)[1].log_density)


@pytest.mark.parametrize("name", CASES)
def test_through_every_constraint(name: str, key: random.Key) -> None:
    constraint, value = CASES[name]

    class Model(Module):
        w = PyroParam(value, constraint=constraint)

        def forward(self) -> Tensor:
            weights = torch.arange(1.0, 1.0 + self.w.numel()).reshape(self.w.shape)
            return (weights * self.w**2).sum()

    params = init(Model(), key)
    _compare(params, lambda params: apply(Model(), params, key))


def test_with_respect_to_values_and_arguments(key: random.Key) -> None:
    model = Everything(nn.Linear(2, 1))
    x, y = random.normal(key, 5, 2), torch.ones(5)
    params = init(model, key)
    _compare(
        {"weight": torch.tensor([0.3, 0.4])},
        lambda values: log_density(model, params, values, x, y),
    )
    gradient = torch.func.grad(lambda x: apply(model, params, key, x, y).sum())(x)
    assert bool((gradient != 0).all())


def test_vmapped_and_second_order(key: random.Key) -> None:
    model = Everything(nn.Linear(2, 1))
    x, y = random.normal(key, 5, 2), torch.ones(5)
    params, keys = init(model, key), random.split(key, 3)

    def loss(params: dict[str, Tensor], key: Tensor) -> Tensor:
        return trace(model, params, random.Key(key), x, y)[1].log_density

    many = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, keys)
    for i in range(3):
        one = torch.func.grad(loss)(params, keys[i])
        torch.testing.assert_close({n: v[i] for n, v in many.items()}, one)
    # Not torch.func.hessian: torch 2.13's forward mode makes 0-d tensors times numbers float64.
    hessian = torch.func.jacrev(torch.func.grad(loss))(params, keys[0])
    assert bool((hessian["shift"]["shift"] != 0).any())
