from torch import Tensor
from torch.distributions.exp_family import ExponentialFamily

class Gamma(ExponentialFamily):
    concentration: Tensor
    rate: Tensor
    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
