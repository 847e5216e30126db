from torch import Tensor
from torch.distributions.normal import Normal
from torch.distributions.transformed_distribution import TransformedDistribution

class HalfNormal(TransformedDistribution):
    base_dist: Normal
    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None: ...
    @property
    def scale(self) -> Tensor: ...
