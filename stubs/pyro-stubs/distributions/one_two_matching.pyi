from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint

class OneTwoMatchingConstraint(Constraint):
    num_destins: int
    num_sources: int
    def __init__(self, num_destins: int) -> None: ...

class OneTwoMatching(TorchDistribution):
    logits: Tensor
    num_destins: int
    num_sources: int
    bp_iters: int | None
    def __init__(
        self, logits: Tensor, *, bp_iters: int | None = None, validate_args: bool | None = None
    ) -> None: ...
    @property
    def log_partition_function(self) -> Tensor: ...
    def mode(self) -> Tensor: ...  # type: ignore[override]

def enumerate_one_two_matchings(num_destins: int) -> Tensor: ...
def maximum_weight_matching(logits: Tensor) -> Tensor: ...
