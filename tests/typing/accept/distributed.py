"""Processes carry the model's arguments too."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Ensemble, Module, PyroSample, random
from purepyro.distributed import DataParallel, Sharded, start
from purepyro.ensemble import EnsembleRunResult, EnsembleState
from purepyro.infer import SVI, AutoNormal, SVIRunResult, SVIState


class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = self.slope * x
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


model, x, y = Line(), torch.ones(5), torch.zeros(5)
svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))

with start() as device:
    assert_type(device, torch.device)
    sharded = Sharded(Ensemble(svi))
    mine = sharded.run(random.split(random.key(0), 3), 5, x, y=y)
    assert_type(mine, EnsembleRunResult)
    assert_type(sharded.gather(mine), EnsembleRunResult)
    assert_type(sharded.gather(mine.state), EnsembleState)
    parallel = DataParallel(svi, data_size=5)
    assert_type(parallel.run(random.key(0), 5, x, y=y), SVIRunResult)
    assert_type(parallel.init(random.key(0), x, y), SVIState)
