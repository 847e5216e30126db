from torch import Tensor
from torch.distributions.exp_family import ExponentialFamily

class Normal(ExponentialFamily):
    loc: Tensor
    scale: Tensor
    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
