from torch import Tensor
from torch.distributions.cauchy import Cauchy
from torch.distributions.transformed_distribution import TransformedDistribution

class HalfCauchy(TransformedDistribution):
    base_dist: Cauchy
    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None: ...
    @property
    def scale(self) -> Tensor: ...
