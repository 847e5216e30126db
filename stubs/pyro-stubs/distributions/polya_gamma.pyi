from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class TruncatedPolyaGamma(TorchDistribution):
    truncation_point: float
    num_log_prob_terms: int
    num_gamma_variates: int
    prototype: Tensor
    def __init__(self, prototype: Tensor, validate_args: bool | None = None) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
