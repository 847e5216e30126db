from torch import Tensor
from torch.distributions.exp_family import ExponentialFamily

class Exponential(ExponentialFamily):
    rate: Tensor
    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None: ...
