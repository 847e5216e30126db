"""Program 5: a network of torch as a field; its first layer gets priors by ``replace``."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from purepyro import Module, PyroSample, apply, init, random, replace


class Network(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x).tanh()
        out: Tensor = self.second(hidden)
        return out.squeeze(-1)


class Regression(Module):
    net: Network
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean: Tensor = self.net(x)
        sigma = self.sigma
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


plain = Regression(Network(3, 50))
model = replace(
    plain,
    {
        "net.first.weight": PyroSample(dist.Normal(0.0, 1.0).expand([50, 3]).to_event(2)),
        "net.first.bias": PyroSample(dist.Normal(torch.zeros(50), 1.0).to_event(1)),
    },
)
assert_type(model, Regression)
key = random.key(0)
assert_type(apply(model, init(model, key), key, torch.ones(5, 3)), Tensor)
