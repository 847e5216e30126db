"""Mistakes in the arguments of runs."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from purepyro import (
    Module,
    PyroParam,
    PyroSample,
    apply,
    apply_with_state,
    constrain,
    init,
    init_state,
    log_density,
    random,
    replace,
    to,
    trace,
)


class Line(Module):
    slope = PyroParam(torch.tensor(1.0))
    shift = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.slope * x * scale + self.shift

    def mean(self, x: Tensor) -> Tensor:
        return self.slope * x


class Parts(Module):
    shift = PyroSample(dist.Normal(0.0, 1.0))


def function(x: Tensor, y: Tensor | None = None) -> Tensor:
    return pyro.sample("y", dist.Normal(x, 1.0), obs=y)


model, key, x = Line(), random.key(0), torch.ones(3)
params = init(model, key)

# A missing, wrong, misspelled or additional argument of the model.
apply(model, params, key)
apply(model, params, key, 3)
apply(model, params, key, x, 2.0)
apply(model, params, key, x, scale="2")
apply(model, params, key, x, sacle=2.0)
apply_with_state(model, params, key, {}, 3)
trace(model, params, key)
log_density(model, params, {}, 3)
apply(model.mean, params, key)
apply(model.mean, params, key, x, scale=1.0)
apply(function, {}, key)
apply(function, {}, key, x, 3)
init(function, key, 3)
apply(poutine.condition(model, data={}), params, key, 3)
apply(poutine.scale(function, scale=2.0), {}, key)
model(3)
model.forward()

# Another result.
number: int = apply(model, params, key, x)
apply(model, params, key, x).shpae
trace(model, params, key, x).latents
trace(model, params, key, x)[1].latent

# A tensor, an integer, a name where a key belongs; the wrong order.
apply(model, params, torch.tensor([0, 0]), x)
apply(model, params, 0, x)
apply(model, key, params, x)
init(model, 0)
init(model, torch.tensor([0, 0]))
init(key, model)
random.normal(torch.zeros(2, dtype=torch.int64), 3)
random.normal(3)
random.split(0, 3)
random.key("0")
random.fold_in(key, "site")
random.name_key(key, 3)

# Parameters and values are dicts of tensors.
apply(model, {"slope": 1.0}, key, x)
apply(model, [x], key, x)
log_density(model, params, {"shift": 1.0}, x)
constrain(model, {"slope": 1.0})
params["slope"] = 2.0

# No model: a Module without forward, a class, a string.
apply(Parts(), {}, key)
Parts()()
apply(Line, {}, key, x)
apply("model", {}, key)
init("model", key)

# Changes.
replace(model)
replace(3, {})
replace(model, {"slope": x}).slop
replace(model, slope=PyroParam(x))
to(model, "float64")
to(x, torch.float64)
