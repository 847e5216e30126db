from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class Unit(TorchDistribution):
    log_factor: Tensor
    def __init__(
        self,
        log_factor: Tensor,
        *,
        has_rsample: bool | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
