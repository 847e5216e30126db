from pyro.distributions.torch import Categorical
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

class GaussianScaleMixture(TorchDistribution):
    coord_scale: Tensor
    component_logits: Tensor
    component_scale: Tensor
    coeffs: Tensor
    dim: int
    categorical: Categorical
    def __init__(
        self, coord_scale: Tensor, component_logits: Tensor, component_scale: Tensor
    ) -> None: ...
