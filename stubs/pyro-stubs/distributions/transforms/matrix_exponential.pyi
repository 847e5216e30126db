from collections.abc import Sequence
from typing import Literal

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedMatrixExponential(Transform):
    weights: Tensor | None
    iterations: int
    normalization: str
    bound: float | None
    def __init__(
        self,
        weights: Tensor | None = None,
        iterations: int = 8,
        normalization: Literal["none", "weight", "spectral"] = "none",
        bound: float | None = None,
    ) -> None: ...

class MatrixExponential(ConditionedMatrixExponential, TransformModule):
    def __init__(
        self,
        input_dim: int,
        iterations: int = 8,
        normalization: Literal["none", "weight", "spectral"] = "none",
        bound: float | None = None,
    ) -> None: ...
    def reset_parameters(self) -> None: ...

class ConditionalMatrixExponential(ConditionalTransformModule):
    input_dim: int
    nn: Module
    def __init__(
        self,
        input_dim: int,
        nn: Module,
        iterations: int = 8,
        normalization: Literal["none", "weight", "spectral"] = "none",
        bound: float | None = None,
    ) -> None: ...
    def condition(self, context: Tensor) -> ConditionedMatrixExponential: ...

def matrix_exponential(
    input_dim: int,
    iterations: int = 8,
    normalization: Literal["none", "weight", "spectral"] = "none",
    bound: float | None = None,
) -> MatrixExponential: ...
def conditional_matrix_exponential(
    input_dim: int,
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    iterations: int = 8,
    normalization: Literal["none", "weight", "spectral"] = "none",
    bound: float | None = None,
) -> ConditionalMatrixExponential: ...
