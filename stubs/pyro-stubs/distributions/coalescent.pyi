from collections.abc import Callable
from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.types import _size

class CoalescentTimesConstraint(Constraint):
    leaf_times: Tensor
    ordered: bool
    def __init__(self, leaf_times: Tensor, *, ordered: bool = True) -> None: ...

class CoalescentTimes(TorchDistribution):
    leaf_times: Tensor
    rate: Tensor
    def __init__(
        self, leaf_times: Tensor, rate: Tensor | float = 1.0, *, validate_args: bool | None = None
    ) -> None: ...

class CoalescentTimesWithRate(TorchDistribution):
    leaf_times: Tensor
    rate_grid: Tensor
    def __init__(
        self, leaf_times: Tensor, rate_grid: Tensor, *, validate_args: bool | None = None
    ) -> None: ...
    @property
    def duration(self) -> int: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class CoalescentRateLikelihood:
    def __init__(
        self,
        leaf_times: Tensor,
        coal_times: Tensor,
        duration: int,
        *,
        validate_args: bool | None = None,
    ) -> None: ...
    def __call__(self, rate_grid: Tensor, t: slice | Tensor | int = ...) -> Tensor: ...

def bio_phylo_to_times(
    tree: object, *, get_time: Callable[[object], float] | None = None
) -> tuple[Tensor, Tensor]: ...
