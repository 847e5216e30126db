"""Program 2: a regression around the layer, with a noise scale and an observed plate."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from purepyro import Module, Prior, PyroSample, Trace, init, log_density, random, trace


class BayesianLinear(Module):
    in_features: int
    out_features: int
    bias = PyroSample(dist.Normal(0.0, 10.0))

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(0.0, 1.0).expand([self.out_features, self.in_features]).to_event(2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


class BayesianRegression(Module):
    linear: BayesianLinear
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.linear(x).squeeze(-1), self.sigma
        assert_type(mean, Tensor)
        assert_type(sigma, Tensor)
        with pyro.plate("data", x.shape[0]):
            assert_type(pyro.sample("obs", dist.Normal(mean, sigma), obs=y), Tensor)
        return mean


model = BayesianRegression(linear=BayesianLinear(3, 1))
key = random.key(0)
params = init(model, key)
x, y = torch.ones(20, 3), torch.zeros(20)

mean, record = trace(model, params, key, x, y)
assert_type(mean, Tensor)
assert_type(record, Trace)
assert_type(record.latents["linear.weight"], Tensor)
assert_type(log_density(model, params, record.latents, x, y), Tensor)
assert_type(model.linear, BayesianLinear)
