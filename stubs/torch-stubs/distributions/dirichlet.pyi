from torch import Tensor
from torch.distributions.exp_family import ExponentialFamily

class Dirichlet(ExponentialFamily):
    concentration: Tensor
    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None: ...
