from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.runtime import InferDict
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.nn import Module

_M = TypeVar("_M", bound=Module)

def get_param_store() -> ParamStoreDict: ...
def clear_param_store() -> None: ...
def param(
    name: str,
    init_tensor: Tensor | Callable[[], Tensor] | None = None,
    constraint: Constraint = ...,
    event_dim: int | None = None,
) -> Tensor: ...
def sample(
    name: str,
    fn: TorchDistributionMixin,
    *args: Any,
    obs: Tensor | None = None,
    obs_mask: Tensor | None = None,
    infer: InferDict | None = None,
    **kwargs: Any,
) -> Tensor: ...
def factor(name: str, log_factor: Tensor, *, has_rsample: bool | None = None) -> None: ...
def deterministic(name: str, value: Tensor, event_dim: int | None = None) -> Tensor: ...
def subsample(data: Tensor, event_dim: int) -> Tensor: ...

class plate(PlateMessenger):
    def __enter__(self) -> Tensor: ...  # type: ignore[override]

class iarange(plate): ...
class irange(SubsampleMessenger): ...

def plate_stack(
    prefix: str, sizes: Sequence[int], rightmost_dim: int = -1
) -> AbstractContextManager[None]: ...
def module(name: str, nn_module: _M, update_module_params: bool = False) -> _M: ...
def random_module(
    name: str, nn_module: Module, prior: Any, *args: Any, **kwargs: Any
) -> Callable[[], Module]: ...
def barrier(data: Tensor) -> Tensor: ...
def enable_validation(is_validate: bool = True) -> None: ...
def validation_enabled(is_validate: bool = True) -> AbstractContextManager[None]: ...
