from collections.abc import Callable, Sequence
from typing import Any, Literal

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedSpline(Transform):
    bound: float
    order: str
    def __init__(
        self,
        params: Callable[[], tuple[Tensor, ...]],
        bound: float = 3.0,
        order: Literal["linear", "quadratic"] = "linear",
    ) -> None: ...
    def spline_op(self, x: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]: ...

class Spline(ConditionedSpline, TransformModule):
    input_dim: int
    count_bins: int
    def __init__(
        self,
        input_dim: int,
        count_bins: int = 8,
        bound: float = 3.0,
        order: Literal["linear", "quadratic"] = "linear",
    ) -> None: ...

class ConditionalSpline(ConditionalTransformModule):
    nn: Module
    input_dim: int
    count_bins: int
    bound: float
    order: str
    def __init__(
        self,
        nn: Module,
        input_dim: int,
        count_bins: int,
        bound: float = 3.0,
        order: Literal["linear", "quadratic"] = "linear",
    ) -> None: ...
    def condition(self, context: Tensor) -> ConditionedSpline: ...

def spline(input_dim: int, **kwargs: Any) -> Spline: ...
def conditional_spline(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: Literal["linear", "quadratic"] = "linear",
) -> ConditionalSpline: ...
