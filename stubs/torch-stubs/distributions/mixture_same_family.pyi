from torch.distributions.categorical import Categorical
from torch.distributions.distribution import Distribution

class MixtureSameFamily(Distribution):
    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def mixture_distribution(self) -> Categorical: ...
    @property
    def component_distribution(self) -> Distribution: ...
