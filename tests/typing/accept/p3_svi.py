"""Program 3: training, by Pyro's own SVI and by the functional one."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro import infer
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from pyro.optim import Adam
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro.infer import SVI, AutoNormal, Predictive, SVIRunResult, SVIState, Trace_ELBO


class Regression(Module):
    features: int
    bias = PyroSample(dist.Normal(0.0, 10.0))
    sigma = PyroSample(dist.HalfNormal(1.0))
    weight = PyroSample(lambda: dist.Normal(0.0, 1.0).expand([3]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = x @ self.weight + self.bias, self.sigma
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


model = Regression(3)
x, y = torch.ones(20, 3), torch.zeros(20)


def train_with_pyro(steps: int) -> list[float]:
    guide = PyroAutoNormal(model)
    svi = infer.SVI(model, guide, Adam({"lr": 0.01}), infer.Trace_ELBO(num_particles=2))
    losses = []
    for _ in range(steps):
        loss = svi.step(x, y)
        assert isinstance(loss, float)
        losses.append(loss)
    return losses


def train(steps: int) -> SVIRunResult:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), Trace_ELBO(num_particles=2))
    state = svi.init(random.key(0), x, y)
    assert_type(state, SVIState)
    state, loss = svi.step(state, x, y)
    assert_type(state, SVIState)
    assert_type(loss, Tensor)
    assert_type(svi.evaluate(state, x, y=y), Tensor)
    return svi.run(random.key(1), steps, x, y)


result = train(100)
assert_type(result.losses, Tensor)
predictive = Predictive(model, guide=AutoNormal(model), params=result.state.params, num_samples=10)
assert_type(predictive(random.key(2), x)["obs"], Tensor)
