from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class SineBivariateVonMises(TorchDistribution):
    max_sample_iter: int
    phi_loc: Tensor
    psi_loc: Tensor
    phi_concentration: Tensor
    psi_concentration: Tensor
    correlation: Tensor
    def __init__(
        self,
        phi_loc: Tensor | float,
        psi_loc: Tensor | float,
        phi_concentration: Tensor | float,
        psi_concentration: Tensor | float,
        correlation: Tensor | float | None = None,
        weighted_correlation: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def norm_const(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
