from collections.abc import Callable
from typing import TypeVar, overload

from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]

_C = TypeVar("_C", bound=Constraint)

class ConstraintRegistry:
    def __init__(self) -> None: ...
    @overload
    def register(
        self, constraint: _C | type[_C], factory: None = None
    ) -> Callable[[Callable[[_C], Transform]], Callable[[_C], Transform]]: ...
    @overload
    def register(
        self, constraint: _C | type[_C], factory: Callable[[_C], Transform]
    ) -> Callable[[_C], Transform]: ...
    def __call__(self, constraint: Constraint) -> Transform: ...

biject_to: ConstraintRegistry
transform_to: ConstraintRegistry
