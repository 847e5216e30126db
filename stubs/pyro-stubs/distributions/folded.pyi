import torch.distributions
from pyro.distributions.torch import TransformedDistribution

class FoldedDistribution(TransformedDistribution):
    def __init__(
        self, base_dist: torch.distributions.Distribution, validate_args: bool | None = None
    ) -> None: ...
