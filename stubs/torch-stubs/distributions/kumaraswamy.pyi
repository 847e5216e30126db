from torch import Tensor
from torch.distributions.transformed_distribution import TransformedDistribution

class Kumaraswamy(TransformedDistribution):
    concentration1: Tensor
    concentration0: Tensor
    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        validate_args: bool | None = None,
    ) -> None: ...
