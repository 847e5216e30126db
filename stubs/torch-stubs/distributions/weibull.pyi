from torch import Tensor
from torch.distributions.transformed_distribution import TransformedDistribution

class Weibull(TransformedDistribution):
    scale: Tensor
    concentration: Tensor
    concentration_reciprocal: Tensor
    def __init__(
        self,
        scale: Tensor | float,
        concentration: Tensor | float,
        validate_args: bool | None = None,
    ) -> None: ...
