from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor
from torch.types import _size

class SineSkewed(TorchDistribution):
    base_dist: TorchDistributionMixin
    skewness: Tensor
    def __init__(
        self, base_dist: TorchDistributionMixin, skewness: Tensor, validate_args: bool | None = None
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
