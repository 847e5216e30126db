"""SVI, guides and Predictive carry the model's arguments."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro.infer import config_enumerate
from torch import Tensor
from torchopt.clip import clip_grad_norm

from purepyro import Module, Params, PyroParam, PyroSample, apply, init, random
from purepyro.infer import (
    ELBO,
    SVI,
    AutoNormal,
    Optimizer,
    Predictive,
    SVIRunResult,
    SVIState,
    Trace_ELBO,
    TraceEnum_ELBO,
)


class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mean = self.slope * x
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


class ByHand(Module):
    loc = PyroParam(torch.tensor(0.0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        pyro.sample("slope", dist.Normal(self.loc, 1.0))


def function(x: Tensor, *, y: Tensor | None = None) -> Tensor:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        return pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)


model, key = Line(), random.key(0)
x, y = torch.ones(5), torch.zeros(5)

# A guide takes the model's arguments.
guide = AutoNormal(model)
as_annotated: AutoNormal[[Tensor, Tensor]] = guide
assert_type(guide(x, y), dict[str, Tensor])
assert_type(apply(guide, init(guide, key, x, y), key, x, y), dict[str, Tensor])
assert_type(AutoNormal(model, init_scale=0.01)(x, y=y), dict[str, Tensor])
assert_type(AutoNormal(function)(x, y=y), dict[str, Tensor])

# SVI does as well.
svi = SVI(model, guide, torchopt.adam(1e-2))
svi_as_annotated: SVI[[Tensor, Tensor]] = svi
state = svi.init(key, x, y)
assert_type(state, SVIState)
assert_type(state.params, Params)
assert_type(state.key, random.Key)
assert_type(state.step, Tensor)
assert_type(svi.step(state, x, y), tuple[SVIState, Tensor])
assert_type(svi.step(state, x, y=y), tuple[SVIState, Tensor])
assert_type(svi.evaluate(state, x, y), Tensor)
result = svi.run(key, 100, x, y)
assert_type(result, SVIRunResult)
assert_type(result.state, SVIState)
assert_type(result.losses, Tensor)
last, losses = svi.run(key, 100, x, y)
assert_type(last, SVIState)

# Also by hand, of functions, of a function and a Module; with another loss or optimiser.
assert_type(SVI(model, ByHand(), torchopt.sgd(1e-2), Trace_ELBO(3)).init(key, x, y), SVIState)
of_function = SVI(function, AutoNormal(function), torchopt.adamw(1e-2), progress_bar=False)
assert_type(of_function.evaluate(of_function.init(key, x, y=y), x, y=y), Tensor)
chained: Optimizer = torchopt.chain(clip_grad_norm(1.0), torchopt.adam(1e-2))
loss: ELBO = Trace_ELBO(num_particles=4, chunk_size=2)
SVI(model, guide, chained, loss=loss).run(key, 3, x, y)

# An ensemble: the vmapped step keeps its signature.
step = torch.vmap(svi.step)
states = torch.vmap(svi.init, in_dims=(0, None, None))(random.split(key, 4), x, y)
assert_type(states, SVIState)
assert_type(torch.vmap(svi.step, in_dims=(0, None, None))(states, x, y), tuple[SVIState, Tensor])
assert_type(step(states, x.expand(4, 5), y.expand(4, 5)), tuple[SVIState, Tensor])

# Prediction.
of_state = of_function.init(key, x, y=y)
predictive = Predictive(function, guide=of_function.guide, params=of_state.params, num_samples=10)
draws = predictive(key, x)
assert_type(draws, dict[str, Tensor])
assert_type(Predictive(model, num_samples=10)(key, x, y), dict[str, Tensor])
assert_type(
    Predictive(function, posterior_samples=draws, return_sites=["obs"], chunk_size=5)(key, x),
    dict[str, Tensor],
)


# Responsibilities: draws and distributions of sites that are summed out.
@config_enumerate
def mixture(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def no_sites(x: Tensor) -> None:
    pass


enumerating = TraceEnum_ELBO()
responsibilities = enumerating.compute_marginals(mixture, no_sites, {}, key, x)
assert_type(responsibilities["k"].probs, Tensor)
assert_type(enumerating.sample_posterior(mixture, no_sites, {}, key, x), dict[str, Tensor])
