"""Run a model: draws, records, densities; as a Module, and as a plain Pyro function.

Run: python examples/02_run.py
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from purepyro import Module, PyroSample, apply, init, log_density, random, trace


class Schools(Module):
    """Effects of eight schools (Rubin 1981): a hierarchy, one effect a school."""

    error: Tensor
    mean = PyroSample(dist.Normal(0.0, 5.0))
    spread = PyroSample(dist.HalfCauchy(5.0))

    def forward(self, effect: Tensor | None = None) -> Tensor:
        mean, spread = self.mean, self.spread
        with pyro.plate("schools", len(self.error)):
            true = pyro.sample("true", dist.Normal(mean, spread))
            return pyro.sample("effect", dist.Normal(true, self.error), obs=effect)


def schools(error: Tensor, effect: Tensor | None = None) -> Tensor:
    """The same as a plain Pyro function."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(error)):
        true = pyro.sample("true", dist.Normal(mean, spread))
        return pyro.sample("effect", dist.Normal(true, error), obs=effect)


error = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
effect = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
model, key = Schools(error), random.key(0)
params = init(model, key)

print("A draw from the prior predictive:", apply(model, params, key).round().tolist())
same = torch.equal(apply(model, params, key), apply(schools, {}, key, error))
print("The plain function draws the same:", same)

_, record = trace(model, params, key, effect)
for name, density in record.log_densities.items():
    print(f"  log density of {name:<7} {density.sum():9.2f}")
again = log_density(model, params, record.latents, effect)
print(f"Their sum {record.log_density:.2f} is the joint log density {again:.2f}")

no_spread = poutine.condition(model, data={"spread": torch.tensor(1e-3)})
pooled = apply(no_spread, params, key)
print("poutine composes: with no spread between schools,", pooled.round().tolist())
