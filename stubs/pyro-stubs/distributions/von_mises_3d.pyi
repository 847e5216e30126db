from typing import Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class VonMises3D(TorchDistribution):
    concentration: Tensor
    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None: ...
    def expand(self, batch_shape: _size) -> Self: ...  # type: ignore[override]
