from torch import Tensor
from torch.distributions.transformed_distribution import TransformedDistribution

class Gumbel(TransformedDistribution):
    loc: Tensor
    scale: Tensor
    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
