from torch import Tensor
from torch.distributions.distribution import Distribution

class LKJCholesky(Distribution):
    dim: int
    concentration: Tensor
    def __init__(
        self, dim: int, concentration: Tensor | float = 1.0, validate_args: bool | None = None
    ) -> None: ...
