from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, overload

from torch import Tensor

__all__ = [
    "Constraint",
    "MixtureSameFamilyConstraint",
    "boolean",
    "cat",
    "corr_cholesky",
    "dependent",
    "dependent_property",
    "greater_than",
    "greater_than_eq",
    "half_open_interval",
    "independent",
    "integer_interval",
    "interval",
    "is_dependent",
    "less_than",
    "lower_cholesky",
    "lower_triangular",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "positive_integer",
    "positive_semidefinite",
    "real",
    "real_vector",
    "simplex",
    "square",
    "stack",
    "symmetric",
    "unit_interval",
]

class Constraint:
    is_discrete: bool
    event_dim: int
    def check(self, value: Tensor) -> Tensor: ...

class _Dependent(Constraint):
    def __init__(self, *, is_discrete: bool = ..., event_dim: int = ...) -> None: ...
    def __call__(self, *, is_discrete: bool = ..., event_dim: int = ...) -> _Dependent: ...

# A `property` at run time. Declared as a plain descriptor, so that it may override the attribute `support`.
class _DependentProperty(Constraint):
    def __init__(
        self,
        fn: Callable[[Any], Constraint] | None = None,
        *,
        is_discrete: bool | None = ...,
        event_dim: int | None = ...,
    ) -> None: ...
    def __call__(self, fn: Callable[[Any], Constraint]) -> _DependentProperty: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> _DependentProperty: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Constraint: ...

class _IndependentConstraint(Constraint):
    base_constraint: Constraint
    reinterpreted_batch_ndims: int
    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int) -> None: ...

class MixtureSameFamilyConstraint(Constraint):
    base_constraint: Constraint
    def __init__(self, base_constraint: Constraint) -> None: ...

class _Boolean(Constraint): ...
class _OneHot(Constraint): ...

class _IntegerInterval(Constraint):
    lower_bound: Tensor | float
    upper_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float, upper_bound: Tensor | float) -> None: ...

class _IntegerLessThan(Constraint):
    upper_bound: Tensor | float
    def __init__(self, upper_bound: Tensor | float) -> None: ...

class _IntegerGreaterThan(Constraint):
    lower_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float) -> None: ...

class _Real(Constraint): ...

class _GreaterThan(Constraint):
    lower_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float) -> None: ...

class _GreaterThanEq(Constraint):
    lower_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float) -> None: ...

class _LessThan(Constraint):
    upper_bound: Tensor | float
    def __init__(self, upper_bound: Tensor | float) -> None: ...

class _Interval(Constraint):
    lower_bound: Tensor | float
    upper_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float, upper_bound: Tensor | float) -> None: ...

class _HalfOpenInterval(Constraint):
    lower_bound: Tensor | float
    upper_bound: Tensor | float
    def __init__(self, lower_bound: Tensor | float, upper_bound: Tensor | float) -> None: ...

class _Simplex(Constraint): ...

class _Multinomial(Constraint):
    upper_bound: Tensor | int
    def __init__(self, upper_bound: Tensor | int) -> None: ...

class _LowerTriangular(Constraint): ...
class _LowerCholesky(Constraint): ...
class _CorrCholesky(Constraint): ...
class _Square(Constraint): ...
class _Symmetric(_Square): ...
class _PositiveSemidefinite(_Symmetric): ...
class _PositiveDefinite(_Symmetric): ...

class _Cat(Constraint):
    cseq: list[Constraint]
    lengths: list[int]
    dim: int
    def __init__(
        self, cseq: Sequence[Constraint], dim: int = 0, lengths: Sequence[int] | None = None
    ) -> None: ...

class _Stack(Constraint):
    cseq: list[Constraint]
    dim: int
    def __init__(self, cseq: Sequence[Constraint], dim: int = 0) -> None: ...

def is_dependent(constraint: object) -> TypeGuard[_Dependent]: ...

boolean: Constraint
cat = _Cat
corr_cholesky: Constraint
dependent: _Dependent
dependent_property = _DependentProperty
greater_than = _GreaterThan
greater_than_eq = _GreaterThanEq
half_open_interval = _HalfOpenInterval
independent = _IndependentConstraint
integer_interval = _IntegerInterval
interval = _Interval
less_than = _LessThan
lower_cholesky: Constraint
lower_triangular: Constraint
multinomial = _Multinomial
nonnegative: Constraint
nonnegative_integer: Constraint
one_hot: Constraint
positive: Constraint
positive_definite: Constraint
positive_integer: Constraint
positive_semidefinite: Constraint
real: Constraint
real_vector: Constraint
simplex: Constraint
square: Constraint
stack = _Stack
symmetric: Constraint
unit_interval: Constraint
