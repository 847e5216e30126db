from torch import Tensor
from torch.distributions.distribution import Distribution

class StudentT(Distribution):
    df: Tensor
    loc: Tensor
    scale: Tensor
    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        validate_args: bool | None = None,
    ) -> None: ...
