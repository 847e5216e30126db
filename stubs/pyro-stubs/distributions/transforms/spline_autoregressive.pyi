from collections.abc import Sequence
from typing import Any, Literal

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from pyro.distributions.transforms.spline import ConditionedSpline
from torch import Tensor
from torch.nn import Module

class SplineAutoregressive(TransformModule):
    autoregressive: bool
    arn: Module
    spline: ConditionedSpline
    def __init__(
        self,
        input_dim: int,
        autoregressive_nn: Module,
        count_bins: int = 8,
        bound: float = 3.0,
        order: Literal["linear", "quadratic"] = "linear",
    ) -> None: ...

class ConditionalSplineAutoregressive(ConditionalTransformModule):
    input_dim: int
    nn: Module
    def __init__(self, input_dim: int, autoregressive_nn: Module, **kwargs: Any) -> None: ...
    def condition(self, context: Tensor) -> SplineAutoregressive: ...

def spline_autoregressive(
    input_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: Literal["linear", "quadratic"] = "linear",
) -> SplineAutoregressive: ...
def conditional_spline_autoregressive(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
    order: Literal["linear", "quadratic"] = "linear",
) -> ConditionalSplineAutoregressive: ...
