"""Program 4: a module with a positive and a unit-interval parameter."""

from __future__ import annotations

from typing import assert_type

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import (
    Module,
    Params,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    constrain,
    init,
    random,
    unconstrain,
)


class Mixture(Module):
    """Each form of a parameter: a tensor, callables, a method, a method with settings."""

    components: int
    scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
    share = PyroParam(torch.tensor(0.5), constraints.unit_interval)
    shift = PyroParam(lambda: torch.randn(()))
    tilt = PyroParam(lambda self: torch.ones(self.components))

    @PyroParam
    def loc(self) -> Tensor:
        return torch.zeros(self.components)

    @PyroParam(constraint=constraints.simplex, event_dim=1)
    def weights(self) -> Tensor:
        return torch.full((self.components,), 1.0 / self.components)

    @PyroSample
    def z(self) -> Prior:
        return dist.Normal(self.loc, self.scale).to_event(1)

    @PyroSample(infer={"enumerate": "parallel"})
    def which(self) -> Prior:
        return dist.Categorical(self.weights)

    def forward(self, x: Tensor) -> Tensor:
        assert_type(self.scale, Tensor)
        assert_type(self.loc, Tensor)
        assert_type(self.which, Tensor)
        return self.share * x + self.z[self.which] + self.shift + self.tilt.sum()


model = Mixture(2)
params = init(model, random.key(0))
assert_type(constrain(model, params), Params)
assert_type(unconstrain(model, {"scale": torch.tensor(2.0)}), Params)
assert_type(apply(model, params, random.key(1), torch.ones(3)), Tensor)
