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
svi.init(key)  # E: mypy[call-arg] pyright[reportCallIssue]
svi.init(key, "x", y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.step(state, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.step(state, x, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.step(state)  # E: mypy[call-arg] pyright[reportCallIssue]
svi.step(state, x, y, y)  # E: mypy[call-arg] pyright[reportCallIssue]
svi.step(state, x, z=y)  # E: mypy[call-arg] pyright[reportCallIssue]
svi.step(x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.step(key, x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.evaluate(state, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.run(key, 100, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.run(key, 100)  # E: mypy[call-arg] pyright[reportCallIssue]
svi.run(key, x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.run(100, key, x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.init(x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
svi.init(0, x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
guide(3)  # E: mypy[arg-type] pyright[reportArgumentType]
guide()  # E: mypy[call-arg] pyright[reportCallIssue]

# The results are what they are.
svi.run(key, 100, x).params  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
svi.step(state, x).params  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
state.parms  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
state.step = x  # E: mypy[misc] pyright[reportAttributeAccessIssue]
svi.step(state, x)[1].losss  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

# Also vmapped.
torch.vmap(svi.step)(state, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
torch.vmap(svi.step)(state)  # E: mypy[call-arg] pyright[reportCallIssue]
# E: mypy[arg-type] pyright[reportArgumentType]
torch.vmap(svi.step, in_dims=(0, None, None))(x, y, state)

# Model, guide, optimiser and loss.
SVI(model, OfNames(), torchopt.adam(1e-2))  # E: pyright[reportArgumentType]
SVI(model, guide)  # E: mypy[call-arg] pyright[reportCallIssue]
SVI(model, guide, Adam({"lr": 1e-2}))  # E: mypy[arg-type] pyright[reportArgumentType]
SVI(model, guide, torchopt.adam)  # E: mypy[arg-type] pyright[reportArgumentType]
SVI(model, guide, torchopt.adam(1e-2), 3)  # E: mypy[arg-type] pyright[reportArgumentType]
# E: mypy[call-arg] pyright[reportCallIssue]
SVI(model, guide, torchopt.adam(1e-2), loss=Trace_ELBO(nparticles=3))
SVI(model, guide, torchopt.adam("1e-2"))  # E: mypy[arg-type] pyright[reportArgumentType]
SVI(model, 3, torchopt.adam(1e-2))  # E: mypy[arg-type] pyright[reportArgumentType]
AutoNormal(3)  # E: mypy[arg-type] pyright[reportArgumentType]
AutoNormal(model, init_scale="0.1")  # E: mypy[arg-type] pyright[reportArgumentType]
AutoNormal()  # E: mypy[call-arg] pyright[reportCallIssue]
svi.model = model  # E: mypy[misc] pyright[reportAttributeAccessIssue]

# Prediction.
predictive = Predictive(model, guide=guide, num_samples=10)
predictive(x)  # E: mypy[arg-type, call-arg] pyright[reportCallIssue]
predictive(key)  # E: mypy[call-arg] pyright[reportCallIssue]
predictive(key, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
predictive(key, x).obs  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Predictive(model, 10)  # E: mypy[arg-type, call-arg] pyright[reportCallIssue]
Predictive(model, num_samples="10")  # E: mypy[arg-type] pyright[reportArgumentType]
Predictive(model, posterior_samples=[x])  # E: mypy[arg-type] pyright[reportArgumentType]
Predictive(model, return_sites=1, num_samples=10)  # E: mypy[arg-type] pyright[reportArgumentType]
