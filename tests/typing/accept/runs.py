"""Runs take the model's arguments and give its result: Modules, methods, functions, handlers."""

from __future__ import annotations

from functools import partial
from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from purepyro import (
    Module,
    Params,
    PyroParam,
    PyroSample,
    State,
    Trace,
    apply,
    apply_with_state,
    constrain,
    init,
    init_state,
    log_density,
    random,
    trace,
    unconstrain,
)


class Line(Module):
    net: nn.BatchNorm1d
    slope = PyroParam(torch.tensor(1.0))
    shift = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, int]:
        return self.slope * x * scale + self.shift, len(x)

    def mean(self, x: Tensor) -> Tensor:
        return self.slope * x


def function(x: Tensor, y: Tensor | None = None) -> Tensor:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    return pyro.sample("y", dist.Normal(loc, 1.0).expand([len(x)]).to_event(1), obs=y)


class Upstream(PyroModule):
    def forward(self, x: Tensor) -> Tensor:
        return x


model, key, x = Line(nn.BatchNorm1d(1)), random.key(0), torch.ones(3)

params = init(model, key)
assert_type(params, Params)
assert_type(params, dict[str, Tensor])
state = init_state(model)
assert_type(state, State)
assert_type(constrain(model, params), Params)
assert_type(unconstrain(model, params), Params)

# A Module.
result = apply(model, params, key, x, scale=2.0)
assert_type(result, tuple[Tensor, int])
assert_type(apply_with_state(model, params, key, state, x), tuple[tuple[Tensor, int], State])
assert_type(trace(model, params, key, x), tuple[tuple[Tensor, int], Trace])
assert_type(log_density(model, params, {"shift": torch.tensor(0.0)}, x, scale=1.0), Tensor)

# A method of one.
assert_type(apply(model.mean, params, key, x), Tensor)
assert_type(trace(model.mean, params, key, x=x), tuple[Tensor, Trace])
assert_type(init(model.mean, key), Params)

# A plain Pyro model.
assert_type(init(function, key, x, y=x), Params)
assert_type(apply(function, {}, key, x), Tensor)
assert_type(apply(function, {}, key, x, y=x), Tensor)
assert_type(trace(function, {}, key, x), tuple[Tensor, Trace])
assert_type(log_density(function, {}, {"loc": torch.tensor(0.0)}, x, x), Tensor)
assert_type(apply(lambda: torch.ones(3), {}, key), Tensor)
assert_type(apply(partial(function, x), {}, key), Tensor)

# Under Pyro's handlers, as functions and as decorators.
observed = poutine.condition(model, data={"shift": torch.tensor(1.0)})
assert_type(apply(observed, params, key, x, scale=1.0), tuple[Tensor, int])
assert_type(init(observed, key), Params)
scaled = poutine.scale(poutine.block(function, hide=["loc"]), scale=0.5)
assert_type(apply(scaled, {}, key, x), Tensor)
assert_type(trace(poutine.lift(model, prior={}), params, key, x)[1], Trace)


@poutine.uncondition
def unobserved(x: Tensor) -> Tensor:
    return function(x, x)


assert_type(apply(unobserved, {}, key, x), Tensor)

# A PyroModule, whose call is typed Any.
upstream = Upstream()
assert_type(init(upstream, key, x), Params)
apply(upstream, init(upstream, key, x), key, x)

# Under torch's transforms.
keys = random.split(key, 5)


def one(key: Tensor) -> Tensor:
    return apply(model, params, random.Key(key), x)[0]


def loss(params: Params) -> Tensor:
    return apply(model, params, key, x)[0].sum()


assert_type(torch.vmap(one)(keys), Tensor)
gradients: Params = torch.func.grad(loss)(params)

# The record.
record = trace(model, params, key, x)[1]
assert_type(record.latents, dict[str, Tensor])
assert_type(record.log_density, Tensor)
assert_type(record.log_densities["shift"], Tensor)
assert_type(record.values, dict[str, Tensor])
