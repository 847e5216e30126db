from collections.abc import Callable, Sequence

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedRadial(Transform):
    def __init__(self, params: Callable[[], tuple[Tensor, ...]]) -> None: ...

class Radial(ConditionedRadial, TransformModule):
    input_dim: int
    def __init__(self, input_dim: int) -> None: ...
    def reset_parameters(self) -> None: ...

class ConditionalRadial(ConditionalTransformModule):
    nn: Module
    def __init__(self, nn: Module) -> None: ...
    def condition(self, context: Tensor) -> ConditionedRadial: ...

def radial(input_dim: int) -> Radial: ...
def conditional_radial(
    input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None
) -> ConditionalRadial: ...
