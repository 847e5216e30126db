from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class Delta(TorchDistribution):
    v: Tensor
    log_density: Tensor
    def __init__(
        self,
        v: Tensor,
        log_density: Tensor | float = 0.0,
        event_dim: int = 0,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
