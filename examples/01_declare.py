"""Declare a model, look at its parameters, and change it into another one.

Run: python examples/01_declare.py
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from purepyro import Module, Prior, PyroParam, PyroSample, constrain, init, random, replace


class Layer(Module):
    """Weights with a prior whose scale is learned."""

    inputs: int
    outputs: int
    scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    @PyroSample
    def weight(self) -> Prior:
        shape = [self.outputs, self.inputs]
        return dist.Normal(0.0, self.scale).expand(shape).to_event(2)

    @PyroParam
    def bias(self) -> Tensor:
        return torch.zeros(self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


class Network(Module):
    """Submodules are fields, also in containers; torch.nn modules too."""

    layers: tuple[Layer, ...]
    head: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        out: Tensor = self.head(x)
        return out


def describe(model: Network) -> None:
    """Print what there is to learn: path, shape, mean of the constrained value."""
    params = init(model, random.key(0))
    for path, value in constrain(model, params).items():
        print(f"  {path:<16} {list(value.shape)!s:<8} mean {value.mean():.3f}")


torch.manual_seed(0)  # for torch's own initial weights of the head
model = Network(layers=(Layer(3, 4), Layer(4, 4)), head=nn.Linear(4, 1))
print("Declared:")
describe(model)

prior = dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2)
changed = replace(
    model,
    {
        "layers.0.weight": PyroParam(torch.ones(4, 3)),  # random becomes learnable
        "head.weight": PyroSample(prior),  # and learnable random
    },
)
print("With layers.0.weight learnable and head.weight random:")
describe(changed)
