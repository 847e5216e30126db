from collections.abc import Callable, Sequence

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer.reparam.reparam import Reparam
from torch.distributions.constraints import Constraint

def same_support(fn: TorchDistributionMixin, *args: object) -> Constraint: ...
def real_support(fn: TorchDistributionMixin, *args: object) -> Constraint: ...
def default_support(fn: TorchDistributionMixin, slice: int, dim: int) -> Constraint: ...

class SplitReparam(Reparam):
    event_dim: int
    sections: int | Sequence[int]
    support_fn: Callable[..., Constraint]
    def __init__(
        self, sections: int | Sequence[int], dim: int, support_fn: Callable[..., Constraint] = ...
    ) -> None: ...
