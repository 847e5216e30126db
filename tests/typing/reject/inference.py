"""Mistakes in inference."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro.optim import Adam
from torch import Tensor

from purepyro import Module, PyroParam, PyroSample, random
from purepyro.infer import SVI, AutoNormal, Predictive, Trace_ELBO


class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = self.slope * x
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


class OfNames(Module):
    loc = PyroParam(torch.tensor(0.0))

    def forward(self, names: list[str]) -> None:
        pyro.sample("slope", dist.Normal(self.loc, 1.0))


model, key = Line(), random.key(0)
x, y = torch.ones(5), torch.zeros(5)
guide = AutoNormal(model)
svi = SVI(model, guide, torchopt.adam(1e-2))
state = svi.init(key, x, y)

# The arguments are the model's.
svi.init(key)
svi.init(key, "x", y)
svi.step(state, 3)
svi.step(state, x, 3)
svi.step(state)
svi.step(state, x, y, y)
svi.step(state, x, z=y)
svi.step(x, y)
svi.step(key, x, y)
svi.evaluate(state, 3)
svi.run(key, 100, 3)
svi.run(key, 100)
svi.run(key, x, y)
svi.run(100, key, x, y)
svi.init(x, y)
svi.init(0, x, y)
guide(3)
guide()

# The results are what they are.
svi.run(key, 100, x).params
svi.step(state, x).params
state.parms
state.step = x
svi.step(state, x)[1].losss

# Also vmapped.
torch.vmap(svi.step)(state, 3)
torch.vmap(svi.step)(state)
torch.vmap(svi.step, in_dims=(0, None, None))(x, y, state)

# Model, guide, optimiser and loss.
SVI(model, OfNames(), torchopt.adam(1e-2))
SVI(model, guide)
SVI(model, guide, Adam({"lr": 1e-2}))
SVI(model, guide, torchopt.adam)
SVI(model, guide, torchopt.adam(1e-2), 3)
SVI(model, guide, torchopt.adam(1e-2), loss=Trace_ELBO(nparticles=3))
SVI(model, guide, torchopt.adam("1e-2"))
SVI(model, 3, torchopt.adam(1e-2))
AutoNormal(3)
AutoNormal(model, init_scale="0.1")
AutoNormal()
svi.model = model

# Prediction.
predictive = Predictive(model, guide=guide, num_samples=10)
predictive(x)
predictive(key)
predictive(key, 3)
predictive(key, x).obs
Predictive(model, 10)
Predictive(model, num_samples="10")
Predictive(model, posterior_samples=[x])
Predictive(model, return_sites=1, num_samples=10)
