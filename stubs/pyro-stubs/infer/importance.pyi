from collections.abc import Callable, Iterator
from typing import Any

from pyro.infer.abstract_infer import TracePosterior
from pyro.poutine.trace_struct import Trace
from torch import Tensor

class LogWeightsMixin:
    log_weights: list[Tensor | float] | Tensor
    def get_log_normalizer(self) -> Tensor: ...
    def get_normalized_weights(self, log_scale: bool = False) -> Tensor: ...
    def get_ESS(self) -> Tensor: ...

class Importance(TracePosterior, LogWeightsMixin):
    log_weights: list[Tensor | float]
    model: Callable[..., object]
    guide: Callable[..., object]
    num_samples: int
    def __init__(
        self,
        model: Callable[..., object],
        guide: Callable[..., object] | None = None,
        num_samples: int | None = None,
    ) -> None: ...
    def _traces(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Trace, Tensor | float]]: ...

def vectorized_importance_weights(
    model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
) -> tuple[Tensor, Trace, Trace]: ...
def psis_diagnostic(
    model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
) -> float: ...
