from typing import Any, Self

from pyro.distributions.torch import NegativeBinomial
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class LogNormalNegativeBinomial(TorchDistribution):
    total_count: Tensor
    logits: Tensor
    multiplicative_noise_scale: Tensor
    num_quad_points: int
    quad_points: Tensor
    log_weights: Tensor
    nb_dist: NegativeBinomial
    def __init__(
        self,
        total_count: Tensor | float,
        logits: Tensor | float,
        multiplicative_noise_scale: Tensor | float,
        *,
        num_quad_points: int = 8,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
