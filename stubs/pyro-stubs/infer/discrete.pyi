from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, overload

from pyro.infer.traceenum_elbo import TraceEnum_ELBO
from pyro.poutine.replay_messenger import ReplayMessenger

_P = ParamSpec("_P")
_T = TypeVar("_T")

class SamplePosteriorMessenger(ReplayMessenger): ...

@overload
def infer_discrete(
    fn: None = None,
    first_available_dim: int | None = None,
    temperature: Literal[0, 1] = 1,
    *,
    strict_enumeration_warning: bool = True,
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]: ...
@overload
def infer_discrete(
    fn: Callable[_P, _T],
    first_available_dim: int | None = None,
    temperature: Literal[0, 1] = 1,
    *,
    strict_enumeration_warning: bool = True,
) -> Callable[_P, _T]: ...

class TraceEnumSample_ELBO(TraceEnum_ELBO):
    def sample_saved(self) -> Any: ...
