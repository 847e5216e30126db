from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class BetaBinomial(TorchDistribution):
    approx_log_prob_tol: float
    total_count: Tensor
    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        total_count: Tensor | float = 1,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def concentration1(self) -> Tensor: ...
    @property
    def concentration0(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class DirichletMultinomial(TorchDistribution):
    total_count: Tensor | float
    is_sparse: bool
    def __init__(
        self,
        concentration: Tensor,
        total_count: Tensor | float = 1,
        is_sparse: bool = False,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def concentration(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class GammaPoisson(TorchDistribution):
    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None
    ) -> None: ...
    @property
    def concentration(self) -> Tensor: ...
    @property
    def rate(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
