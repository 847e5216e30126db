from pyro.distributions.torch import LKJCholesky, TransformedDistribution
from torch import Tensor

class LKJCorrCholesky(LKJCholesky):
    def __init__(self, d: int, eta: Tensor | float, validate_args: bool | None = None) -> None: ...

class LKJ(TransformedDistribution):
    dim: int
    concentration: Tensor
    def __init__(
        self, dim: int, concentration: Tensor | float = 1.0, validate_args: bool | None = None
    ) -> None: ...
