"""Fields: tensors on an instance, declarations on the class; the constructor takes the rest."""

from __future__ import annotations

from typing import Generic, TypeVar, assert_type

import attrs
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from purepyro import Module, Prior, PyroParam, PyroSample, static

M = TypeVar("M", bound=Module)


class Layer(Module):
    size: int
    activation: nn.Module = attrs.field(factory=nn.Tanh)
    prior_scale: float = 1.0
    scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
    bias = PyroSample(dist.Normal(0.0, 1.0))
    from_lambda = PyroSample(lambda self: dist.Normal(0.0, self.prior_scale))
    from_thunk = PyroParam(lambda: torch.ones(3))

    @PyroParam(constraint=constraints.positive, event_dim=1)
    def rates(self) -> Tensor:
        return torch.ones(self.size)

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(self.bias, self.scale).expand([self.size]).to_event(1)

    shared = PyroSample(dist.Normal(0.0, 1.0), local=False)
    each = PyroSample(lambda self: dist.Normal(self.bias, 1.0), local=True, infer={})
    unsaid = PyroSample(dist.Normal(0.0, 1.0), local=None)

    @PyroSample(local=True)
    def level(self) -> Prior:
        return dist.Normal(self.shared, 1.0)

    @PyroSample(local=False)
    def doubled(self) -> Tensor:
        return 2 * self.shared

    @PyroSample(infer={"is_auxiliary": True})
    def noise(self) -> Prior:
        return dist.HalfNormal(self.prior_scale)

    @PyroSample
    def total(self) -> Tensor:
        assert_type(self.weight, Tensor)
        return self.weight.sum() + self.noise

    @PyroSample
    def narrow(self) -> dist.Normal:
        return dist.Normal(0.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.total


def on_an_instance(layer: Layer) -> None:
    assert_type(layer.size, int)
    assert_type(layer.activation, nn.Module)
    assert_type(layer.scale, Tensor)
    assert_type(layer.bias, Tensor)
    assert_type(layer.from_lambda, Tensor)
    assert_type(layer.from_thunk, Tensor)
    assert_type(layer.rates, Tensor)
    assert_type(layer.weight, Tensor)
    assert_type(layer.noise, Tensor)
    assert_type(layer.total, Tensor)
    assert_type(layer.narrow, Tensor)
    assert_type(layer.shared, Tensor)
    assert_type(layer.level, Tensor)
    assert_type(layer.doubled, Tensor)
    assert_type(layer(torch.ones(3)), Tensor)
    assert_type(layer.forward(torch.ones(3)), Tensor)


def on_the_class() -> None:
    weight: PyroSample = Layer.weight
    rates: PyroParam = Layer.rates
    scale: PyroParam = Layer.scale
    assert_type(Layer.weight, PyroSample[Layer])
    assert_type(Layer.noise, PyroSample[Layer])
    assert_type(Layer.level, PyroSample[Layer])
    assert_type(Layer.rates, PyroParam[Layer])


def positional_or_keyword() -> None:
    assert_type(Layer(3), Layer)
    assert_type(Layer(3, nn.ReLU()), Layer)
    assert_type(Layer(3, nn.ReLU(), 2.0), Layer)
    assert_type(Layer(size=3, prior_scale=2.0), Layer)


class Wide(Layer):
    """Fields are inherited, declarations too, and either can be declared anew."""

    width: int = 2
    bias = PyroSample(dist.Laplace(0.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.width


class Stack(Module):
    """Submodules may stand in tuples and dicts."""

    layers: tuple[Layer, ...]
    heads: dict[str, Layer]
    name: str = static(default="stack")

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.heads["mean"](x)


class Twice(Module, Generic[M]):
    """A Module may be generic."""

    inner: M

    def forward(self) -> tuple[M, M]:
        return self.inner, self.inner


wide = Wide(3, width=4)
stack = Stack((Layer(3), wide), {"mean": Layer(3)}, name="tower")
assert_type(stack.layers[0], Layer)
assert_type(stack.name, str)
assert_type(Twice(stack), Twice[Stack])
assert_type(Twice(stack).inner, Stack)
assert_type(Twice(stack)(), tuple[Stack, Stack])
