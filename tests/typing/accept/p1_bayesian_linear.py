"""Program 1: a Bayesian linear layer, its weight a matrix of normals, its bias a vector."""

from __future__ import annotations

from typing import assert_type

import pyro.distributions as dist
import torch
from torch import Tensor

from purepyro import Module, Params, Prior, PyroSample, apply, init, random


class BayesianLinear(Module):
    in_features: int
    out_features: int

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(0.0, 1.0).expand([self.out_features, self.in_features]).to_event(2)

    @PyroSample
    def bias(self) -> Prior:
        return dist.Normal(torch.zeros(self.out_features), 10.0).to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


model = BayesianLinear(3, out_features=2)
key = random.key(0)
params = init(model, key)
y = apply(model, params, key, torch.ones(5, 3))

assert_type(model, BayesianLinear)
assert_type(model.in_features, int)
assert_type(params, Params)
assert_type(y, Tensor)
