from typing import Self

from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.types import _size

class MaskedConstraint(Constraint):
    mask: Tensor
    constraint0: Constraint
    constraint1: Constraint
    def __init__(self, mask: Tensor, constraint0: Constraint, constraint1: Constraint) -> None: ...

class MaskedMixture(TorchDistribution):
    mask: Tensor  # type: ignore[assignment]
    component0: TorchDistributionMixin
    component1: TorchDistributionMixin
    def __init__(
        self,
        mask: Tensor,
        component0: TorchDistributionMixin,
        component1: TorchDistributionMixin,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size) -> Self: ...  # type: ignore[override]
