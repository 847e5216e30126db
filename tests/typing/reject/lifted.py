"""Mistakes with networks of torch as Modules."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from purepyro import apply, describe, fan_in_normal, init, lift, random, reduce_state


class Network(nn.Module):
    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return scale * x


key, x = random.key(0), torch.ones(2, 3)
model = lift(Network())
params = init(model, key)

# The arguments of the network's forward.
model()  # E: mypy[call-arg] pyright[reportCallIssue]
model("x")  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, params, key)  # E: mypy[call-arg] pyright[reportCallIssue]
apply(model, params, key, "x")  # E: mypy[arg-type] pyright[reportArgumentType]
apply(model, params, key, x, scael=2.0)  # E: mypy[call-arg] pyright[reportCallIssue]
number: int = apply(model, params, key, x)  # E: mypy[assignment] pyright[reportAssignmentType]

# What is lifted, and how.
lift(3)  # E: mypy[call-overload] pyright[reportArgumentType]
lift(Network(), 1.0)  # E: mypy[call-overload] pyright[reportCallIssue, reportArgumentType]
# E: mypy[dict-item] pyright[reportCallIssue, reportArgumentType]
lift(Network(), {3: dist.Normal(0.0, 1.0)})
# E: mypy[call-overload] pyright[reportCallIssue, reportArgumentType]
lift(Network(), torch.distributions.Normal(0, 1))
lift(Network(), frozen=1)  # E: mypy[call-overload] pyright[reportArgumentType]
lift(Network(), frosen="x")  # E: mypy[call-overload] pyright[reportCallIssue]
fan_in_normal("2")  # E: mypy[arg-type] pyright[reportArgumentType]
model.net = Network()  # E: mypy[misc] pyright[reportAttributeAccessIssue]

# What is described, and how states become one.
describe("model")  # E: mypy[arg-type] pyright[reportArgumentType]
reduce_state({}, "median")  # E: mypy[arg-type] pyright[reportArgumentType]
