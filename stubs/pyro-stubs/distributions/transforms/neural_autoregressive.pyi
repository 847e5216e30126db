from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.nn import Module

class NeuralAutoregressive(TransformModule):
    eps: float
    autoregressive: bool
    arn: Module
    hidden_units: int
    def __init__(
        self, autoregressive_nn: Module, hidden_units: int = 16, activation: str = "sigmoid"
    ) -> None: ...

class ConditionalNeuralAutoregressive(ConditionalTransformModule):
    nn: Module
    def __init__(self, autoregressive_nn: Module, **kwargs: Any) -> None: ...
    def condition(self, context: Tensor) -> NeuralAutoregressive: ...

def neural_autoregressive(
    input_dim: int,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "sigmoid",
    width: int = 16,
) -> NeuralAutoregressive: ...
def conditional_neural_autoregressive(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    activation: str = "sigmoid",
    width: int = 16,
) -> ConditionalNeuralAutoregressive: ...
