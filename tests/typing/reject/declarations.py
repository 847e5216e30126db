"""Mistakes in declarations, constructors and fields."""

from __future__ import annotations

from typing import assert_type

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import Module, Prior, PyroParam, PyroSample


class Layer(Module):
    size: int
    scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(0.0, self.scale).expand([self.size]).to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def typo(self) -> Tensor:
        return self.wieght


class Network(Module):
    layer: Layer
    name: str = "net"

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def wrong_argument(self, x: Tensor) -> Tensor:
        return self.layer("x")

    def missing_argument(self, x: Tensor) -> Tensor:
        return self.layer()

    def wrong_result(self, x: Tensor) -> int:
        return self.layer(x)


layer = Layer(3)

# A typo in a field, on an instance, below one, on the class.
layer.wieght
Network(layer).layer.sale
Layer.wieght

# The constructor.
Layer()
Layer("3")
Layer(3, 4)
Layer(sise=3)
Layer(3, scale=torch.tensor(1.0))
Layer(3, weight=torch.ones(3))
Network(layer=3)
Network(layer, nmae="net")

# A Module never changes.
layer.size = 4
layer.weight = torch.ones(3)
layer.scale = torch.tensor(2.0)
layer.wieght = torch.ones(3)
del layer.size

# A field is a tensor on an instance, a declaration on the class.
number: float = layer.weight
layer.weight.shpae
layer.weight("x")
declared: Tensor = Layer.weight


class Declarations(Module):
    """What is no declaration."""

    of_string = PyroParam("one")
    of_number = PyroParam(1.0)
    string_constraint = PyroParam(torch.tensor(1.0), constraint="positive")
    wrong_keyword = PyroParam(torch.tensor(1.0), constrain=constraints.positive)
    string_dims = PyroParam(torch.zeros(2), event_dim="1")
    thunk_of_number = PyroParam(lambda: 1.0)
    tensor_as_prior = PyroSample(torch.zeros(2))
    string_as_prior = PyroSample("normal")
    class_as_prior = PyroSample(dist.Normal)
    torch_as_prior = PyroSample(torch.distributions.Normal(0.0, 1.0))
    lambda_of_string = PyroSample(lambda self: "normal")
    lambda_of_two = PyroSample(lambda self, x: dist.Normal(0.0, 1.0))
    annotated: Tensor = PyroSample(dist.Normal(0.0, 1.0))

    @PyroSample
    def string(self) -> str:
        return "normal"

    @PyroSample
    def with_argument(self, x: Tensor) -> Prior:
        return dist.Normal(x, 1.0)

    @PyroSample(infer={"enumerate": "parallel"})
    def number(self) -> float:
        return 1.0

    @PyroParam
    def initial_number(self) -> float:
        return 1.0

    @PyroParam(constraint=constraints.positive)
    def initial_prior(self) -> Prior:
        return dist.Normal(0.0, 1.0)

    @PyroSample
    def wrong_return(self) -> Prior:
        return "normal"

    @PyroSample
    def wrong_call(self) -> Prior:
        return dist.Normal(0.0, scael=1.0)


class DefaultBefore(Module):
    size: int = 3
    width: int
