from typing import Any

from pyro.distributions.torch_transform import TransformModule
from torch import Tensor

class BatchNorm(TransformModule):
    input_dim: int
    gamma: Tensor
    beta: Tensor
    momentum: float
    epsilon: float
    def __init__(self, input_dim: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None: ...
    @property
    def constrained_gamma(self) -> Tensor: ...

def batchnorm(input_dim: int, **kwargs: Any) -> BatchNorm: ...
