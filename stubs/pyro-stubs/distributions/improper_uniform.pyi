from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch.distributions.constraints import Constraint
from torch.types import _size

class ImproperUniform(TorchDistribution):
    def __init__(self, support: Constraint, batch_shape: _size, event_shape: _size) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
