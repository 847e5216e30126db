from torch import Tensor
from torch.distributions.gamma import Gamma
from torch.distributions.transformed_distribution import TransformedDistribution

class InverseGamma(TransformedDistribution):
    base_dist: Gamma
    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
    @property
    def concentration(self) -> Tensor: ...
    @property
    def rate(self) -> Tensor: ...
