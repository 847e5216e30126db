from torch import Tensor
from torch.distributions.transforms import Transform

class PositivePowerTransform(Transform):
    exponent: Tensor
    def __init__(
        self, exponent: Tensor | float, *, cache_size: int = 0, validate_args: bool | None = None
    ) -> None: ...
