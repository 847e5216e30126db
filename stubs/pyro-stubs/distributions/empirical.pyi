from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

class Empirical(TorchDistribution):
    def __init__(
        self, samples: Tensor, log_weights: Tensor, validate_args: bool | None = None
    ) -> None: ...
    @property
    def sample_size(self) -> int: ...
    @property
    def log_weights(self) -> Tensor: ...
