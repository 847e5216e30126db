"""A run is a pure function: differentiate it, map it over keys and parameters.

Run: python examples/03_transform.py
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import Module, PyroParam, PyroSample, apply, init, log_density, random


class Decay(Module):
    """Counts that fall with time at an unknown rate."""

    start = PyroParam(torch.tensor(50.0), constraint=constraints.positive)
    rate = PyroSample(dist.Gamma(2.0, 4.0))

    def forward(self, time: Tensor, count: Tensor | None = None) -> Tensor:
        mean = self.start * (-self.rate * time).exp()
        with pyro.plate("times", len(time)):
            return pyro.sample("count", dist.Poisson(mean), obs=count)


model, key = Decay(), random.key(0)
params = init(model, key)
time = torch.linspace(0.0, 3.0, 7)

# grad: the score of a parameter, and the density over a grid of rates.
count = apply(model, params, key, time)
print("counts", count.int().tolist())


def density(params: dict[str, Tensor], rate: Tensor) -> Tensor:
    """The joint log density as a function of a parameter and of a latent value."""
    return log_density(model, params, {"rate": rate}, time, count)


score = torch.func.grad(density)(params, torch.tensor(0.5))
print(f"d log density / d start (unconstrained) {score['start']:.2f}")

grid = torch.linspace(0.05, 2.0, 400)
curve = torch.vmap(density, in_dims=(None, 0))(params, grid)
print(f"most probable rate on a grid {grid[curve.argmax()]:.2f}")

# vmap over keys: a thousand draws at once, each what it would be alone.
keys = random.split(key, 1_000)
draws = torch.vmap(lambda key: apply(model, params, random.Key(key), time))(keys)
alone = apply(model, params, random.Key(keys[500]), time)
print("mean count by time", draws.mean(0).round().int().tolist())
print("draw 500 is the single run:", torch.equal(draws[500], alone))
