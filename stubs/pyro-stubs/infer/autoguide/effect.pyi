from abc import ABCMeta
from collections.abc import Callable, Sequence
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn.module import PyroModule, _PyroModuleMeta
from pyro.poutine.guide import GuideMessenger
from torch import Tensor

class AutoMessengerMeta(ABCMeta, _PyroModuleMeta): ...

class AutoMessenger(GuideMessenger, PyroModule, metaclass=AutoMessengerMeta):
    amortized_plates: tuple[str, ...]
    def __init__(
        self, model: Callable[..., object], *, amortized_plates: tuple[str, ...] = ()
    ) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...  # type: ignore[override]
    def call(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]: ...

class AutoNormalMessenger(AutoMessenger):
    init_loc_fn: Callable[..., Any]
    def __init__(
        self,
        model: Callable[..., object],
        *,
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        amortized_plates: tuple[str, ...] = (),
    ) -> None: ...
    def get_posterior(
        self, name: str, prior: TorchDistributionMixin
    ) -> TorchDistributionMixin | Tensor: ...
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...

class AutoHierarchicalNormalMessenger(AutoNormalMessenger):
    weight_type: str
    def __init__(
        self,
        model: Callable[..., object],
        *,
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        amortized_plates: tuple[str, ...] = (),
        init_weight: float = 1.0,
        hierarchical_sites: Sequence[str] | None = None,
    ) -> None: ...

class AutoRegressiveMessenger(AutoMessenger):
    init_loc_fn: Callable[..., Any]
    def __init__(
        self,
        model: Callable[..., object],
        *,
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        amortized_plates: tuple[str, ...] = (),
    ) -> None: ...
    def get_posterior(
        self, name: str, prior: TorchDistributionMixin
    ) -> TorchDistributionMixin | Tensor: ...
