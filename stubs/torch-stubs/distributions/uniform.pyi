from torch import Tensor
from torch.distributions.distribution import Distribution

class Uniform(Distribution):
    low: Tensor
    high: Tensor
    def __init__(
        self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
