from collections.abc import Callable, Iterable, Mapping, Sequence
from queue import Queue
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, overload

from pyro.distributions.distribution import Distribution
from pyro.infer.reparam.reparam import Reparam
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.collapse_messenger import CollapseMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.do_messenger import DoMessenger
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.equalize_messenger import EqualizeMessenger
from pyro.poutine.escape_messenger import EscapeMessenger
from pyro.poutine.infer_config_messenger import InferConfigMessenger
from pyro.poutine.lift_messenger import LiftMessenger
from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.reparam_messenger import ReparamHandler, ReparamMessenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import InferDict, Message
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.seed_messenger import SeedMessenger
from pyro.poutine.substitute_messenger import SubstituteMessenger
from pyro.poutine.trace_messenger import TraceHandler, TraceMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Message: TypeAlias = Message

@overload
def block(
    fn: None = None,
    hide_fn: Callable[[_Message], bool | None] | None = None,
    expose_fn: Callable[[_Message], bool | None] | None = None,
    hide_all: bool = True,
    expose_all: bool = False,
    hide: Sequence[str] | None = None,
    expose: Sequence[str] | None = None,
    hide_types: Sequence[str] | None = None,
    expose_types: Sequence[str] | None = None,
) -> BlockMessenger: ...
@overload
def block(
    fn: Callable[_P, _T],
    hide_fn: Callable[[_Message], bool | None] | None = None,
    expose_fn: Callable[[_Message], bool | None] | None = None,
    hide_all: bool = True,
    expose_all: bool = False,
    hide: Sequence[str] | None = None,
    expose: Sequence[str] | None = None,
    hide_types: Sequence[str] | None = None,
    expose_types: Sequence[str] | None = None,
) -> Callable[_P, _T]: ...
@overload
def broadcast(fn: None = None) -> BroadcastMessenger: ...
@overload
def broadcast(fn: Callable[_P, _T]) -> Callable[_P, _T]: ...
@overload
def collapse(fn: None = None, *args: Any, **kwargs: Any) -> CollapseMessenger: ...
@overload
def collapse(fn: Callable[_P, _T], *args: Any, **kwargs: Any) -> Callable[_P, _T]: ...
@overload
def condition(fn: None = None, *, data: Mapping[str, Tensor] | Trace) -> ConditionMessenger: ...
@overload
def condition(fn: Callable[_P, _T], data: Mapping[str, Tensor] | Trace) -> Callable[_P, _T]: ...
@overload
def do(fn: None = None, *, data: Mapping[str, Tensor | float]) -> DoMessenger: ...
@overload
def do(fn: Callable[_P, _T], data: Mapping[str, Tensor | float]) -> Callable[_P, _T]: ...
@overload
def enum(fn: None = None, first_available_dim: int | None = None) -> EnumMessenger: ...
@overload
def enum(fn: Callable[_P, _T], first_available_dim: int | None = None) -> Callable[_P, _T]: ...
@overload
def equalize(
    fn: None = None,
    *,
    sites: str | Sequence[str],
    type: str | None = ...,
    keep_dist: bool | None = ...,
) -> EqualizeMessenger: ...
@overload
def equalize(
    fn: Callable[_P, _T],
    sites: str | Sequence[str],
    type: str | None = ...,
    keep_dist: bool | None = ...,
) -> Callable[_P, _T]: ...
@overload
def escape(fn: None = None, *, escape_fn: Callable[[_Message], bool]) -> EscapeMessenger: ...
@overload
def escape(fn: Callable[_P, _T], escape_fn: Callable[[_Message], bool]) -> Callable[_P, _T]: ...
@overload
def infer_config(
    fn: None = None, *, config_fn: Callable[[_Message], InferDict]
) -> InferConfigMessenger: ...
@overload
def infer_config(
    fn: Callable[_P, _T], config_fn: Callable[[_Message], InferDict]
) -> Callable[_P, _T]: ...
@overload
def lift(
    fn: None = None,
    *,
    prior: Callable[..., object]
    | Distribution
    | Mapping[str, Distribution | Callable[..., object]],
) -> LiftMessenger: ...
@overload
def lift(
    fn: Callable[_P, _T],
    prior: Callable[..., object]
    | Distribution
    | Mapping[str, Distribution | Callable[..., object]],
) -> Callable[_P, _T]: ...
@overload
def mask(fn: None = None, *, mask: Tensor | bool) -> MaskMessenger: ...
@overload
def mask(fn: Callable[_P, _T], mask: Tensor | bool) -> Callable[_P, _T]: ...
@overload
def reparam(
    fn: None = None, *, config: Mapping[str, Reparam] | Callable[[_Message], Reparam | None]
) -> ReparamMessenger: ...
@overload
def reparam(
    fn: Callable[_P, _T], config: Mapping[str, Reparam] | Callable[[_Message], Reparam | None]
) -> ReparamHandler[_P, _T]: ...
@overload
def replay(
    fn: None = None, trace: Trace | None = None, params: Mapping[str, Tensor] | None = None
) -> ReplayMessenger: ...
@overload
def replay(
    fn: Callable[_P, _T], trace: Trace | None = None, params: Mapping[str, Tensor] | None = None
) -> Callable[_P, _T]: ...
@overload
def scale(fn: None = None, *, scale: Tensor | float) -> ScaleMessenger: ...
@overload
def scale(fn: Callable[_P, _T], scale: Tensor | float) -> Callable[_P, _T]: ...
@overload
def seed(fn: None = None, *, rng_seed: int) -> SeedMessenger: ...
@overload
def seed(fn: Callable[_P, _T], rng_seed: int) -> Callable[_P, _T]: ...
@overload
def substitute(fn: None = None, *, data: Mapping[str, Tensor]) -> SubstituteMessenger: ...
@overload
def substitute(fn: Callable[_P, _T], data: Mapping[str, Tensor]) -> Callable[_P, _T]: ...
@overload
def trace(
    fn: None = None,
    graph_type: Literal["flat", "dense"] | None = None,
    param_only: bool | None = None,
) -> TraceMessenger: ...
@overload
def trace(
    fn: Callable[_P, _T],
    graph_type: Literal["flat", "dense"] | None = None,
    param_only: bool | None = None,
) -> TraceHandler[_P, _T]: ...
@overload
def uncondition(fn: None = None) -> UnconditionMessenger: ...
@overload
def uncondition(fn: Callable[_P, _T]) -> Callable[_P, _T]: ...
@overload
def queue(
    fn: None = None,
    queue: Queue[Trace] | None = None,
    max_tries: int | None = None,
    extend_fn: Callable[..., Iterable[Trace]] | None = None,
    escape_fn: Callable[[Trace, _Message], bool] | None = None,
    num_samples: int | None = None,
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]: ...
@overload
def queue(
    fn: Callable[_P, _T],
    queue: Queue[Trace] | None = None,
    max_tries: int | None = None,
    extend_fn: Callable[..., Iterable[Trace]] | None = None,
    escape_fn: Callable[[Trace, _Message], bool] | None = None,
    num_samples: int | None = None,
) -> Callable[_P, _T]: ...
@overload
def markov(
    fn: None = None,
    history: int = 1,
    keep: bool = False,
    dim: int | None = None,
    name: str | None = None,
) -> MarkovMessenger: ...
@overload
def markov(
    fn: Callable[_P, _T],
    history: int = 1,
    keep: bool = False,
    dim: int | None = None,
    name: str | None = None,
) -> Callable[_P, _T]: ...
@overload
def markov(
    fn: Iterable[int],
    history: int = 1,
    keep: bool = False,
    dim: int | None = None,
    name: str | None = None,
) -> Iterable[int]: ...
