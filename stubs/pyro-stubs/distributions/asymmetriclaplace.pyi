from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class AsymmetricLaplace(TorchDistribution):
    loc: Tensor
    scale: Tensor
    asymmetry: Tensor
    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        asymmetry: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def left_scale(self) -> Tensor: ...
    @property
    def right_scale(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class SoftAsymmetricLaplace(TorchDistribution):
    loc: Tensor
    scale: Tensor
    asymmetry: Tensor
    softness: Tensor
    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        asymmetry: Tensor | float = 1.0,
        softness: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def left_scale(self) -> Tensor: ...
    @property
    def right_scale(self) -> Tensor: ...
    @property
    def soft_scale(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
