from typing import Any, Literal, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class Stable(TorchDistribution):
    stability: Tensor
    skew: Tensor
    scale: Tensor
    loc: Tensor
    coords: Literal["S", "S0"]
    def __init__(
        self,
        stability: Tensor | float,
        skew: Tensor | float,
        scale: Tensor | float = 1.0,
        loc: Tensor | float = 0.0,
        coords: Literal["S", "S0"] = "S0",
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class StableWithLogProb(Stable): ...
