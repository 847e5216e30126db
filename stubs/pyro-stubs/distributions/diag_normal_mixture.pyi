from typing import Any, Self

from pyro.distributions.torch import Categorical
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class MixtureOfDiagNormals(TorchDistribution):
    locs: Tensor
    coord_scale: Tensor
    component_logits: Tensor
    probs: Tensor
    dim: int
    categorical: Categorical
    def __init__(self, locs: Tensor, coord_scale: Tensor, component_logits: Tensor) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
