from collections.abc import Sequence

from pyro.distributions.torch_transform import TransformModule
from torch.nn import Module

class Polynomial(TransformModule):
    autoregressive: bool
    arn: Module
    input_dim: int
    count_degree: int
    count_sum: int
    def __init__(
        self, autoregressive_nn: Module, input_dim: int, count_degree: int, count_sum: int
    ) -> None: ...
    def reset_parameters(self) -> None: ...

def polynomial(input_dim: int, hidden_dims: Sequence[int] | None = None) -> Polynomial: ...
