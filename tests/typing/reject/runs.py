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
apply(model, params, key)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(model, params, key, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, params, key, x, 2.0)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(model, params, key, x, scale="2")  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, params, key, x, sacle=2.0)  # E: mypy[call-arg] pyright[reportCallIssue]
apply_with_state(model, params, key, {}, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
trace(model, params, key)  # E: mypy[call-arg] pyright[reportCallIssue]
log_density(model, params, {}, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model.mean, params, key)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(model.mean, params, key, x, scale=1.0)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(function, {}, key)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(function, {}, key, x, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
init(function, key, 3)  # E: mypy[call-overload] pyright[reportArgumentType]
# E: mypy[arg-type] pyright[reportArgumentType]
apply(poutine.condition(model, data={}), params, key, 3)
apply(poutine.scale(function, scale=2.0), {}, key)  # E: mypy[call-arg] pyright[reportCallIssue]
model(3)  # E: mypy[arg-type] pyright[reportArgumentType]
model.forward()  # E: mypy[call-arg] pyright[reportCallIssue]

# Another result.
number: int = apply(model, params, key, x)  # E: mypy[assignment] pyright[reportAssignmentType]
apply(model, params, key, x).shpae  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
trace(model, params, key, x).latents  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
trace(model, params, key, x)[1].latent  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

# A tensor, an integer, a name where a key belongs; the wrong order.
apply(model, params, torch.tensor([0, 0]), x)  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, params, 0, x)  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, key, params, x)  # E: mypy[arg-type] pyright[reportArgumentType]
init(model, 0)  # E: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
# E: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
init(model, torch.tensor([0, 0]))
init(key, model)  # E: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
random.normal(torch.zeros(2, dtype=torch.int64), 3)  # E: mypy[arg-type] pyright[reportArgumentType]
random.normal(3)  # E: mypy[arg-type] pyright[reportArgumentType]
random.split(0, 3)  # E: mypy[arg-type] pyright[reportArgumentType]
random.key("0")  # E: mypy[arg-type] pyright[reportArgumentType]
random.fold_in(key, "site")  # E: mypy[arg-type] pyright[reportArgumentType]
random.name_key(key, 3)  # E: mypy[arg-type] pyright[reportArgumentType]

# Parameters and values are dicts of tensors.
apply(model, {"slope": 1.0}, key, x)  # E: mypy[dict-item] pyright[reportArgumentType]
apply(model, [x], key, x)  # E: mypy[arg-type] pyright[reportArgumentType]
log_density(model, params, {"shift": 1.0}, x)  # E: mypy[dict-item] pyright[reportArgumentType]
constrain(model, {"slope": 1.0})  # E: mypy[dict-item] pyright[reportArgumentType]
params["slope"] = 2.0  # E: mypy[assignment] pyright[reportArgumentType]

# No model: a Module without forward, a class, a string.
apply(Parts(), {}, key)  # E: pyright[reportArgumentType, reportCallIssue]
Parts()()  # E: mypy[misc] pyright[reportCallIssue]
apply(Line, {}, key, x)  # E: mypy[call-arg] pyright[reportCallIssue]
apply("model", {}, key)  # E: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
init("model", key)  # E: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]

# Changes.
replace(model)  # E: mypy[call-arg] pyright[reportCallIssue]
replace(3, {})  # E: mypy[type-var] pyright[reportArgumentType]
replace(model, {"slope": x}).slop  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
replace(model, slope=PyroParam(x))  # E: mypy[call-arg] pyright[reportCallIssue]
to(model, "float64")  # E: mypy[arg-type] pyright[reportArgumentType]
to(x, torch.float64)  # E: mypy[type-var] pyright[reportArgumentType]
