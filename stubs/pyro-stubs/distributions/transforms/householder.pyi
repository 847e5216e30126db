from collections.abc import Sequence

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedHouseholder(Transform):
    volume_preserving: bool
    u_unnormed: Tensor | None
    def __init__(self, u_unnormed: Tensor | None = None) -> None: ...
    def u(self) -> Tensor: ...

class Householder(ConditionedHouseholder, TransformModule):
    input_dim: int
    def __init__(self, input_dim: int, count_transforms: int = 1) -> None: ...
    def reset_parameters(self) -> None: ...

class ConditionalHouseholder(ConditionalTransformModule):
    input_dim: int
    nn: Module
    count_transforms: int
    def __init__(self, input_dim: int, nn: Module, count_transforms: int = 1) -> None: ...
    def condition(self, context: Tensor) -> ConditionedHouseholder: ...

def householder(input_dim: int, count_transforms: int | None = None) -> Householder: ...
def conditional_householder(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_transforms: int = 1,
) -> ConditionalHouseholder: ...
