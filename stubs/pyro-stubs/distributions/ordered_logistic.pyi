from pyro.distributions.torch import Categorical
from torch import Tensor

class OrderedLogistic(Categorical):
    predictor: Tensor
    cutpoints: Tensor
    def __init__(
        self, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None
    ) -> None: ...
