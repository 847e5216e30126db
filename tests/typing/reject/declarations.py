"""Mistakes in declarations, constructors and fields."""

from __future__ import annotations

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
        # E: mypy[attr-defined, no-any-return] pyright[reportAttributeAccessIssue]
        return self.wieght


class Network(Module):
    layer: Layer
    name: str = "net"

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def wrong_argument(self, x: Tensor) -> Tensor:
        return self.layer("x")  # E: mypy[arg-type] pyright[reportArgumentType]

    def missing_argument(self, x: Tensor) -> Tensor:
        return self.layer()  # E: mypy[call-arg] pyright[reportCallIssue]

    def wrong_result(self, x: Tensor) -> int:
        return self.layer(x)  # E: mypy[return-value] pyright[reportReturnType]


layer = Layer(3)

# A typo in a field, on an instance, below one, on the class.
layer.wieght  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Network(layer).layer.sale  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Layer.wieght  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]

# The constructor.
Layer()  # E: mypy[call-arg] pyright[reportCallIssue]
Layer("3")  # E: mypy[arg-type] pyright[reportArgumentType]
Layer(3, 4)  # E: mypy[call-arg] pyright[reportCallIssue]
Layer(sise=3)  # E: mypy[call-arg] pyright[reportCallIssue]
Layer(3, scale=torch.tensor(1.0))  # E: mypy[call-arg] pyright[reportCallIssue]
Layer(3, weight=torch.ones(3))  # E: mypy[call-arg] pyright[reportCallIssue]
Network(layer=3)  # E: mypy[arg-type] pyright[reportArgumentType]
Network(layer, nmae="net")  # E: mypy[call-arg] pyright[reportCallIssue]

# A Module never changes.
layer.size = 4  # E: mypy[misc] pyright[reportAttributeAccessIssue]
layer.weight = torch.ones(3)  # E: mypy[assignment] pyright[reportAttributeAccessIssue]
layer.scale = torch.tensor(2.0)  # E: mypy[assignment] pyright[reportAttributeAccessIssue]
layer.wieght = torch.ones(3)  # E: mypy[assignment] pyright[reportArgumentType]
del layer.size  # E: pyright[reportAttributeAccessIssue]

# A field is a tensor on an instance, a declaration on the class.
number: float = layer.weight  # E: mypy[assignment] pyright[reportAssignmentType]
layer.weight.shpae  # E: mypy[attr-defined] pyright[reportAttributeAccessIssue]
layer.weight("x")  # E: mypy[operator] pyright[reportCallIssue]
declared: Tensor = Layer.weight  # E: mypy[assignment] pyright[reportAssignmentType]


class Declarations(Module):
    """What is no declaration."""

    # E: mypy[arg-type] pyright[reportArgumentType]
    of_string = PyroParam("one")
    # E: mypy[arg-type] pyright[reportArgumentType]
    of_number = PyroParam(1.0)
    # E: mypy[arg-type] pyright[reportArgumentType]
    string_constraint = PyroParam(torch.tensor(1.0), constraint="positive")
    # E: mypy[call-arg] pyright[reportCallIssue]
    wrong_keyword = PyroParam(torch.tensor(1.0), constrain=constraints.positive)
    # E: mypy[arg-type] pyright[reportArgumentType]
    string_dims = PyroParam(torch.zeros(2), event_dim="1")
    # E: mypy[arg-type] pyright[reportArgumentType]
    thunk_of_number = PyroParam(lambda: 1.0)
    # E: mypy[arg-type] pyright[reportArgumentType]
    tensor_as_prior = PyroSample(torch.zeros(2))
    # E: mypy[arg-type] pyright[reportArgumentType]
    string_as_prior = PyroSample("normal")
    # E: mypy[arg-type] pyright[reportArgumentType]
    class_as_prior = PyroSample(dist.Normal)
    # E: mypy[arg-type] pyright[reportArgumentType]
    torch_as_prior = PyroSample(torch.distributions.Normal(0.0, 1.0))
    # E: mypy[arg-type] pyright[reportArgumentType]
    lambda_of_string = PyroSample(lambda self: "normal")
    # E: mypy[arg-type] pyright[reportArgumentType]
    lambda_of_two = PyroSample(lambda self, x: dist.Normal(0.0, 1.0))
    # E: mypy[arg-type] pyright[reportArgumentType]
    local_to_a_name = PyroSample(dist.Normal(0.0, 1.0), local="data")
    # E: mypy[call-arg] pyright[reportCallIssue]
    local_parameter = PyroParam(torch.tensor(1.0), local=False)
    # E: mypy[assignment] pyright[reportAssignmentType]
    annotated: Tensor = PyroSample(dist.Normal(0.0, 1.0))

    @PyroSample  # E: mypy[arg-type] pyright[reportArgumentType]
    def string(self) -> str:
        return "normal"

    @PyroSample  # E: mypy[arg-type] pyright[reportArgumentType]
    def with_argument(self, x: Tensor) -> Prior:
        return dist.Normal(x, 1.0)

    @PyroSample(infer={"enumerate": "parallel"})  # E: mypy[arg-type] pyright[reportArgumentType]
    def number(self) -> float:
        return 1.0

    @PyroParam  # E: mypy[arg-type] pyright[reportArgumentType]
    def initial_number(self) -> float:
        return 1.0

    @PyroParam(constraint=constraints.positive)  # E: mypy[arg-type] pyright[reportArgumentType]
    def initial_prior(self) -> Prior:
        return dist.Normal(0.0, 1.0)

    @PyroSample
    def wrong_return(self) -> Prior:
        return "normal"  # E: mypy[return-value] pyright[reportReturnType]

    @PyroSample
    def wrong_call(self) -> Prior:
        return dist.Normal(0.0, scael=1.0)  # E: mypy[call-arg] pyright[reportCallIssue]


class DefaultBefore(Module):
    size: int = 3
    width: int  # E: mypy[misc] pyright[reportGeneralTypeIssues]
