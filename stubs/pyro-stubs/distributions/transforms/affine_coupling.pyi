from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.nn import Module

class AffineCoupling(TransformModule):
    split_dim: int
    nn: Module
    dim: int
    def __init__(
        self,
        split_dim: int,
        hypernet: Module,
        *,
        dim: int = -1,
        log_scale_min_clip: float = -5.0,
        log_scale_max_clip: float = 3.0,
    ) -> None: ...

class ConditionalAffineCoupling(ConditionalTransformModule):
    split_dim: int
    nn: Module
    def __init__(self, split_dim: int, hypernet: Module, **kwargs: Any) -> None: ...
    def condition(self, context: Tensor) -> AffineCoupling: ...

def affine_coupling(
    input_dim: int | Sequence[int],
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    dim: int = -1,
    **kwargs: Any,
) -> AffineCoupling: ...
def conditional_affine_coupling(
    input_dim: int | Sequence[int],
    context_dim: int,
    hidden_dims: Sequence[int] | None = None,
    split_dim: int | None = None,
    dim: int = -1,
    **kwargs: Any,
) -> ConditionalAffineCoupling: ...
