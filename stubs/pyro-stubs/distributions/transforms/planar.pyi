from collections.abc import Callable, Sequence

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedPlanar(Transform):
    def __init__(self, params: Callable[[], tuple[Tensor, ...]]) -> None: ...

class Planar(ConditionedPlanar, TransformModule):
    input_dim: int
    def __init__(self, input_dim: int) -> None: ...
    def reset_parameters(self) -> None: ...

class ConditionalPlanar(ConditionalTransformModule):
    nn: Module
    def __init__(self, nn: Module) -> None: ...
    def condition(self, context: Tensor) -> ConditionedPlanar: ...

def planar(input_dim: int) -> Planar: ...
def conditional_planar(
    input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None
) -> ConditionalPlanar: ...
