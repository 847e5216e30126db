from torch import Tensor
from torch.distributions.gamma import Gamma

class Chi2(Gamma):
    def __init__(self, df: Tensor | float, validate_args: bool | None = None) -> None: ...
    @property
    def df(self) -> Tensor: ...
