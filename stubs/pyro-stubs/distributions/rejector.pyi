from collections.abc import Callable

from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor
from torch.types import _size

class Rejector(TorchDistribution):
    propose: Callable[[_size], Tensor] | TorchDistributionMixin
    log_prob_accept: Callable[[Tensor], Tensor]
    def __init__(
        self,
        propose: Callable[[_size], Tensor] | TorchDistributionMixin,
        log_prob_accept: Callable[[Tensor], Tensor],
        log_scale: Tensor | float,
        *,
        batch_shape: _size | None = None,
        event_shape: _size | None = None,
    ) -> None: ...
