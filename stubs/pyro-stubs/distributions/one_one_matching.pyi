from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint

class OneOneMatchingConstraint(Constraint):
    num_nodes: int
    def __init__(self, num_nodes: int) -> None: ...

class OneOneMatching(TorchDistribution):
    logits: Tensor
    num_nodes: int
    bp_iters: int | None
    def __init__(
        self, logits: Tensor, *, bp_iters: int | None = None, validate_args: bool | None = None
    ) -> None: ...
    @property
    def log_partition_function(self) -> Tensor: ...
    def mode(self) -> Tensor: ...  # type: ignore[override]

def maximum_weight_matching(logits: Tensor) -> Tensor: ...
