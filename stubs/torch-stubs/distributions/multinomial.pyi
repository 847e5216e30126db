from torch import Size, Tensor
from torch.distributions.distribution import Distribution

class Multinomial(Distribution):
    total_count: int
    def __init__(
        self,
        total_count: int = 1,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def logits(self) -> Tensor: ...
    @property
    def probs(self) -> Tensor: ...
    @property
    def param_shape(self) -> Size: ...
