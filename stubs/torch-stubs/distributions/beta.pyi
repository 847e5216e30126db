from torch import Tensor
from torch.distributions.exp_family import ExponentialFamily

class Beta(ExponentialFamily):
    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def concentration1(self) -> Tensor: ...
    @property
    def concentration0(self) -> Tensor: ...
