from torch import Tensor
from torch.distributions.distribution import Distribution

class Cauchy(Distribution):
    loc: Tensor
    scale: Tensor
    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
