"""Guides take the arguments of their model; checkpoints keep the state's type."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import attrs
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import apply, init, random
from purepyro.infer import (
    SVI,
    AutoDelta,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    RenyiELBO,
    SVIState,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    init_to_median,
    load,
    save,
)


def model(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ slope, 1.0), obs=y)


x, y, key = torch.ones(4, 2), torch.zeros(4), random.key(0)
guide = AutoMultivariateNormal(model, init_to_median(num_samples=5))
params = init(guide, key, x, y)
assert_type(apply(guide, params, key, x, y), dict[str, Tensor])
assert_type(guide.median(params, x, y), dict[str, Tensor])
assert_type(guide.sample_posterior(params, key, x, y), dict[str, Tensor])

svi = SVI(model, guide, torchopt.adam(0.1), TraceMeanField_ELBO(num_particles=2))
state, loss = svi.step(svi.init(key, x, y), x, y)
assert_type(state, SVIState)
for other in (TraceGraph_ELBO(), RenyiELBO(num_particles=2)):
    assert_type(SVI(model, guide, torchopt.adam(0.1), other).evaluate(state, x, y), Tensor)
assert_type(attrs.evolve(svi, frozen=("locs.*",)).run_from(state, 1, x, y).state, SVIState)


def round_trip(path: Path) -> SVIState:
    save(path, state)
    return load(path, like=state)


AutoDelta(model).median(init(AutoDelta(model), key, x, y), x, y)
AutoLowRankMultivariateNormal(model, rank=1)
AutoIAFNormal(model)
AutoLaplaceApproximation(model)
AutoGuideList([AutoDelta(model)])
