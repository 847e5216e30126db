from torch import Size, Tensor
from torch.distributions.distribution import Distribution
from torch.distributions.transformed_distribution import TransformedDistribution

class LogitRelaxedBernoulli(Distribution):
    temperature: Tensor
    def __init__(
        self,
        temperature: Tensor,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def probs(self) -> Tensor: ...
    @property
    def param_shape(self) -> Size: ...

class RelaxedBernoulli(TransformedDistribution):
    base_dist: LogitRelaxedBernoulli
    def __init__(
        self,
        temperature: Tensor,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def temperature(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def probs(self) -> Tensor: ...
