from torch import Tensor
from torch.distributions.distribution import Distribution

class GeneralizedPareto(Distribution):
    loc: Tensor
    scale: Tensor
    concentration: Tensor
    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        concentration: Tensor | float,
        validate_args: bool | None = None,
    ) -> None: ...
    def log_survival_function(self, value: Tensor) -> Tensor: ...
    def log_cdf(self, value: Tensor) -> Tensor: ...
