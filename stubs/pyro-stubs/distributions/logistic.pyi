from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class Logistic(TorchDistribution):
    loc: Tensor
    scale: Tensor
    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class SkewLogistic(TorchDistribution):
    loc: Tensor
    scale: Tensor
    asymmetry: Tensor
    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        asymmetry: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
