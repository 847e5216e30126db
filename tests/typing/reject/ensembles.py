"""Mistakes with ensembles."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Ensemble, Module, PyroSample, random
from purepyro.ensemble import EnsemblePredictive
from purepyro.infer import SVI, AutoNormal


class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = self.slope * x
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


model, keys = Line(), random.split(random.key(0), 3)
x, y = torch.ones(5), torch.zeros(5)
svi = SVI(model, AutoNormal(model), torchopt.adam(1e-2))
ensemble = Ensemble(svi)
state = ensemble.init(keys, x, y)

# The arguments are the model's.
ensemble.init(keys)  # E: mypy[call-arg] pyright[reportCallIssue]
ensemble.init(keys, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.init(x, y)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.step(state, x, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.step(state)  # E: mypy[call-arg] pyright[reportCallIssue]
ensemble.step(state, x, z=y)  # E: mypy[call-arg] pyright[reportCallIssue]
ensemble.run(keys, 10, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.run(10, keys, x)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.predictive(state).predict(keys[0], 3)  # E: mypy[arg-type] pyright[reportArgumentType]

# A state is an ensemble's or one of SVI.
svi.step(state, x)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.step(ensemble.member(state, 0), x)  # E: mypy[arg-type] pyright[reportArgumentType]
ensemble.member(state, [0])  # E: mypy[arg-type] pyright[reportArgumentType]
state.params  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

# What an ensemble is made of.
Ensemble(model)  # E: mypy[arg-type] pyright[reportArgumentType]
Ensemble(svi, map="vmp")  # E: mypy[arg-type] pyright[reportArgumentType]
Ensemble(svi, chunk_size="2")  # E: mypy[arg-type] pyright[reportArgumentType]
EnsemblePredictive(model)  # E: mypy[call-arg] pyright[reportCallIssue]
