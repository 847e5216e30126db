from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class MultivariateStudentT(TorchDistribution):
    df: Tensor
    loc: Tensor
    def __init__(
        self, df: Tensor | float, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None
    ) -> None: ...
    @property
    def scale_tril(self) -> Tensor: ...
    @property
    def covariance_matrix(self) -> Tensor: ...
    @property
    def precision_matrix(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
