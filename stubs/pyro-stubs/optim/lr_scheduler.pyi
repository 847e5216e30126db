from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyro.optim.optim import PyroOptim
from torch import Tensor

class PyroLRScheduler(PyroOptim):
    pt_scheduler_constructor: Callable[..., object]
    kwargs: dict[str, Any]
    def __init__(
        self,
        scheduler_constructor: Callable[..., object],
        optim_args: Mapping[str, Any],
        clip_args: Mapping[str, Any] | None = None,
    ) -> None: ...
    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None: ...
    def step(self, *args: Any, **kwargs: Any) -> None: ...
