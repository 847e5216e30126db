from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, overload

from pyro.poutine.runtime import Message
from pyro.poutine.trace_struct import Trace

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Default: TypeAlias = Literal["parallel", "sequential"] | None

def iter_discrete_escape(trace: Trace, msg: Message) -> bool: ...
def iter_discrete_extend(trace: Trace, site: Message, **ignored: Any) -> Iterator[Trace]: ...
def get_importance_trace(
    graph_type: Literal["flat", "dense"],
    max_plate_nesting: float,
    model: Callable[..., object],
    guide: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    detach: bool = False,
) -> tuple[Trace, Trace]: ...
def iter_discrete_traces(
    graph_type: Literal["flat", "dense"], fn: Callable[..., object], *args: Any, **kwargs: Any
) -> Iterator[Trace]: ...
@overload
def config_enumerate(
    guide: None = None,
    default: _Default = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: Literal["diagonal", "mixture"] = "diagonal",
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]: ...
@overload
def config_enumerate(
    guide: _Default,
    default: _Default = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: Literal["diagonal", "mixture"] = "diagonal",
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]: ...
@overload
def config_enumerate(
    guide: Callable[_P, _T],
    default: _Default = "parallel",
    expand: bool = False,
    num_samples: int | None = None,
    tmc: Literal["diagonal", "mixture"] = "diagonal",
) -> Callable[_P, _T]: ...
