"""Networks of torch as Modules: ``forward`` keeps the signature of the network's."""

from __future__ import annotations

from typing import assert_type

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from purepyro import (
    Description,
    Lifted,
    Module,
    apply,
    apply_with_state,
    describe,
    expand_state,
    fan_in_laplace,
    fan_in_normal,
    init,
    init_state,
    lift,
    random,
    reduce_state,
    trace,
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, int]:
        out: Tensor = self.layer(x)
        return scale * out, len(x)


key, x = random.key(0), torch.ones(2, 3)
model = lift(Network())
params = init(model, key)
assert_type(apply(model, params, key, x), tuple[Tensor, int])
assert_type(apply(model, params, key, x, scale=2.0), tuple[Tensor, int])
assert_type(trace(model, params, key, x)[0], tuple[Tensor, int])
assert_type(apply_with_state(model, params, key, init_state(model), x)[0], tuple[Tensor, int])
assert_type(model(x), tuple[Tensor, int])

# A layer of torch says what it takes.
linear = lift(nn.Linear(3, 1))
assert_type(apply(linear, init(linear, key), key, x), Tensor)

# All forms of a prior.
normal = dist.Normal(0.0, 1.0)


def weights_only(name: str, value: Tensor) -> TorchDistributionMixin | None:
    return normal if value.dim() > 1 else None


lift(Network(), normal)
lift(Network(), fan_in_normal())
lift(Network(), weights_only)
lift(Network(), {"layer.bias": None, "*.weight": fan_in_laplace(0.5)})
lift(Network(), {nn.Linear: normal})
lift(Network(), {nn.Linear: normal, "layer.bias": weights_only})
lift(Network(), frozen=["layer.*"], reinitialize=True)


class Regression(Module):
    """A lifted network as a field: any one of its signature."""

    net: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(-1)


regression = Regression(lift(nn.Linear(3, 1)))
assert_type(apply(regression, init(regression, key), key, x), Tensor)
assert_type(describe(regression), Description)
assert_type(describe(regression).entries[0].path, str)
state = reduce_state(expand_state(init_state(model), 2), "mean")
assert_type(state, dict[str, Tensor])
