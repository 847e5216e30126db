from torch import Tensor
from torch.distributions.transformed_distribution import TransformedDistribution

class Pareto(TransformedDistribution):
    scale: Tensor
    alpha: Tensor
    def __init__(
        self, scale: Tensor | float, alpha: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
