from torch import Tensor
from torch.distributions.distribution import Distribution

class VonMises(Distribution):
    loc: Tensor
    concentration: Tensor
    def __init__(
        self, loc: Tensor | float, concentration: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
