from collections.abc import Sequence
from typing import Self

from torch import Size, Tensor
from torch.distributions.constraints import Constraint
from torch.distributions.distribution import Distribution
from torch.types import _size

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "CatTransform",
    "ComposeTransform",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "ExpTransform",
    "IndependentTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "TanhTransform",
    "Transform",
    "identity_transform",
]

class Transform:
    bijective: bool
    domain: Constraint
    codomain: Constraint
    sign: Tensor | int
    def __init__(self, cache_size: int = 0) -> None: ...
    @property
    def event_dim(self) -> int: ...
    @property
    def inv(self) -> Transform: ...
    def with_cache(self, cache_size: int = 1) -> Self: ...
    def __call__(self, x: Tensor) -> Tensor: ...
    def _inv_call(self, y: Tensor) -> Tensor: ...
    def _call(self, x: Tensor) -> Tensor: ...
    def _inverse(self, y: Tensor) -> Tensor: ...
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor: ...
    def forward_shape(self, shape: _size) -> Size: ...
    def inverse_shape(self, shape: _size) -> Size: ...

class _InverseTransform(Transform):
    def __init__(self, transform: Transform) -> None: ...

class ComposeTransform(Transform):
    parts: Sequence[Transform]
    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None: ...

class IndependentTransform(Transform):
    base_transform: Transform
    reinterpreted_batch_ndims: int
    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None: ...

class ReshapeTransform(Transform):
    in_shape: Size
    out_shape: Size
    def __init__(self, in_shape: _size, out_shape: _size, cache_size: int = 0) -> None: ...

class ExpTransform(Transform): ...

class PowerTransform(Transform):
    exponent: Tensor
    def __init__(self, exponent: Tensor | float, cache_size: int = 0) -> None: ...

class SigmoidTransform(Transform): ...
class SoftplusTransform(Transform): ...
class TanhTransform(Transform): ...
class AbsTransform(Transform): ...

class AffineTransform(Transform):
    loc: Tensor | float
    scale: Tensor | float
    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, event_dim: int = 0, cache_size: int = 0
    ) -> None: ...

class CorrCholeskyTransform(Transform): ...
class SoftmaxTransform(Transform): ...
class StickBreakingTransform(Transform): ...
class LowerCholeskyTransform(Transform): ...
class PositiveDefiniteTransform(Transform): ...

class CatTransform(Transform):
    transforms: list[Transform]
    lengths: list[int]
    dim: int
    def __init__(
        self,
        tseq: Sequence[Transform],
        dim: int = 0,
        lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None: ...
    @property
    def length(self) -> int: ...

class StackTransform(Transform):
    transforms: list[Transform]
    dim: int
    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None: ...

class CumulativeDistributionTransform(Transform):
    distribution: Distribution
    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None: ...

identity_transform: ComposeTransform
