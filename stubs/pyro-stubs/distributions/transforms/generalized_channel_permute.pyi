from collections.abc import Sequence
from typing import Any

from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module

class ConditionedGeneralizedChannelPermute(Transform):
    permutation: Tensor | None
    LU: Tensor | None
    def __init__(self, permutation: Tensor | None = None, LU: Tensor | None = None) -> None: ...
    @property
    def U_diag(self) -> Tensor: ...
    @property
    def L(self) -> Tensor: ...
    @property
    def U(self) -> Tensor: ...

class GeneralizedChannelPermute(ConditionedGeneralizedChannelPermute, TransformModule):
    def __init__(self, channels: int = 3, permutation: Tensor | None = None) -> None: ...

class ConditionalGeneralizedChannelPermute(ConditionalTransformModule):
    nn: Module
    channels: int
    def __init__(
        self, nn: Module, channels: int = 3, permutation: Tensor | None = None
    ) -> None: ...
    def condition(self, context: Tensor) -> ConditionedGeneralizedChannelPermute: ...

def generalized_channel_permute(**kwargs: Any) -> GeneralizedChannelPermute: ...
def conditional_generalized_channel_permute(
    context_dim: int, channels: int = 3, hidden_dims: Sequence[int] | None = None
) -> ConditionalGeneralizedChannelPermute: ...
