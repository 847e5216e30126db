from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, Literal, NotRequired, TypedDict, overload

from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER as _MODULE_NAMESPACE_DIVIDER
from pyro.params.param_store import ParamStoreDict as ParamStoreDict
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch import Tensor
from typing_extensions import ParamSpec, TypeVar

_P = ParamSpec("_P", default=...)
_T = TypeVar("_T", default=Any)

_PYRO_STACK: list[Messenger]
_PYRO_PARAM_STORE: ParamStoreDict

class InferDict(TypedDict, total=False):
    enumerate: Literal["sequential", "parallel"]
    expand: bool
    is_auxiliary: bool
    is_observed: bool
    num_samples: int
    obs: Tensor | None
    prior: TorchDistributionMixin
    tmc: Literal["diagonal", "mixture"]
    was_observed: bool
    _deterministic: bool
    _dim_to_symbol: dict[int, str]
    _do_not_trace: bool
    _enumerate_symbol: str
    _markov_scope: Counter[str]
    _enumerate_dim: int
    _dim_to_id: dict[int, int]
    _markov_depth: int

# The keys without NotRequired are those that pyro.sample, pyro.param and `effectful` give to every message.
class Message(TypedDict, Generic[_P, _T]):
    type: str
    name: str | None
    fn: Callable[_P, _T]
    is_observed: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    value: _T | None
    scale: Tensor | float
    mask: Tensor | bool | None
    cond_indep_stack: tuple[CondIndepStackFrame, ...]
    done: bool
    stop: bool
    continuation: Callable[[Message], None] | None
    infer: InferDict | None
    obs: NotRequired[Tensor | None]
    log_prob: NotRequired[Tensor]
    log_prob_sum: NotRequired[Tensor]
    unscaled_log_prob: NotRequired[Tensor]
    score_parts: NotRequired[ScoreParts]
    packed: NotRequired[Message]
    _intervener_id: NotRequired[str | None]

class _DimAllocator:
    _stack: list[str | None]
    def allocate(self, name: str, dim: int | None) -> int: ...
    def free(self, name: str, dim: int) -> None: ...

class _EnumAllocator:
    next_available_dim: int
    next_available_id: int
    dim_to_id: dict[int, int]
    def set_first_available_dim(self, first_available_dim: int) -> None: ...
    def allocate(self, scope_dims: set[int] | None = None) -> tuple[int, int]: ...

_DIM_ALLOCATOR: _DimAllocator
_ENUM_ALLOCATOR: _EnumAllocator

class NonlocalExit(Exception):
    site: Message
    def __init__(self, site: Message, *args: object, **kwargs: object) -> None: ...
    def reset_stack(self) -> None: ...

def default_process_message(msg: Message) -> None: ...
def apply_stack(initial_msg: Message) -> None: ...
def am_i_wrapped() -> bool: ...
@overload
def effectful(
    fn: None = None, type: str | None = None
) -> Callable[[Callable[_P, _T]], Callable[..., _T]]: ...
@overload
def effectful(fn: Callable[_P, _T], type: str | None = None) -> Callable[..., _T]: ...
def _inspect() -> Message: ...
def get_mask() -> Tensor | bool | None: ...
def get_plates() -> tuple[CondIndepStackFrame, ...]: ...
