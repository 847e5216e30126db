from torch import Tensor
from torch.distributions.distribution import Distribution

class FisherSnedecor(Distribution):
    df1: Tensor
    df2: Tensor
    def __init__(
        self, df1: Tensor | float, df2: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
