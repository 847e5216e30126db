from collections.abc import Sequence
from typing import Any, Literal

from pyro.distributions.torch_transform import TransformModule
from torch import Tensor
from torch.nn import Module

class BlockAutoregressive(TransformModule):
    autoregressive: bool
    input_dim: int
    def __init__(
        self,
        input_dim: int,
        hidden_factors: Sequence[int] = ...,
        activation: str = "tanh",
        residual: Literal["normal", "gated"] | None = None,
    ) -> None: ...

class MaskedBlockLinear(Module):
    def __init__(
        self, in_features: int, out_features: int, dim: int, bias: bool = True
    ) -> None: ...
    def get_weights(self) -> tuple[Tensor, Tensor]: ...
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

def log_matrix_product(A: Tensor, B: Tensor) -> Tensor: ...
def block_autoregressive(input_dim: int, **kwargs: Any) -> BlockAutoregressive: ...
