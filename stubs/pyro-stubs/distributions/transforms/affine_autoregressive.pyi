from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.nn import Module

class AffineAutoregressive(TransformModule):
    autoregressive: bool
    arn: Module
    def __init__(
        self,
        autoregressive_nn: Module,
        log_scale_min_clip: float = -5.0,
        log_scale_max_clip: float = 3.0,
        sigmoid_bias: float = 2.0,
        stable: bool = False,
    ) -> None: ...

class ConditionalAffineAutoregressive(ConditionalTransformModule):
    nn: Module
    def __init__(self, autoregressive_nn: Module, **kwargs: Any) -> None: ...
    def condition(self, context: Tensor) -> AffineAutoregressive: ...

def affine_autoregressive(
    input_dim: int, hidden_dims: Sequence[int] | None = None, **kwargs: Any
) -> AffineAutoregressive: ...
def conditional_affine_autoregressive(
    input_dim: int, context_dim: int, hidden_dims: Sequence[int] | None = None, **kwargs: Any
) -> ConditionalAffineAutoregressive: ...
