"""Jitted functions keep their signatures."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Module, PyroSample, disable_jit, jit, random
from purepyro.infer import SVI, AutoNormal, SVIRunResult, SVIState


class Line(Module):
    shift = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return pyro.sample("y", dist.Normal(x + self.shift, 1.0).to_event(1), obs=y)

    @jit
    def twice(self, x: Tensor) -> Tensor:
        return 2 * x


@jit
def plain(x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, int]:
    return scale * x, 3


@jit(max_specializations=4)
def few(x: Tensor) -> Tensor:
    return x


model, key, x = Line(), random.key(0), torch.ones(3)
svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), compiled=True)
state = svi.init(key, x, x)

# A step, a decorated function, a method, a model.
step = jit(svi.step)
assert_type(step(state, x, x), tuple[SVIState, Tensor])
assert_type(step(state, x, y=x), tuple[SVIState, Tensor])
assert_type(svi.run(key, 10, x, x), SVIRunResult)
assert_type(plain(x, scale=2.0), tuple[Tensor, int])
assert_type(few(x), Tensor)
assert_type(model.twice(x), Tensor)
assert_type(jit(plain)(x, scale=2.0), tuple[Tensor, int])

# What a jitted function knows.
assert_type(plain.cache_info().hits, int)
assert_type(plain.cache_info().maxsize, int)
plain.cache_clear()

# Under transforms, and transformed functions.
assert_type(torch.vmap(few)(x), Tensor)
keys = random.split(key, 2)
states = torch.vmap(svi.init, in_dims=(0, None, None))(keys, x, x)
assert_type(jit(torch.vmap(svi.step, in_dims=(0, None, None)))(states, x, x)[1], Tensor)

with disable_jit():
    assert_type(few(x), Tensor)
