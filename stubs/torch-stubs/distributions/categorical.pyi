from torch import Size, Tensor
from torch.distributions.distribution import Distribution

class Categorical(Distribution):
    def __init__(
        self,
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
