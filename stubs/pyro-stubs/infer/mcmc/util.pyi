from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions.transforms import Transform

class TraceTreeEvaluator:
    def __init__(
        self,
        model_trace: Trace,
        has_enumerable_sites: bool = False,
        max_plate_nesting: int | None = None,
    ) -> None: ...
    def log_prob(self, model_trace: Trace) -> Tensor: ...

class TraceEinsumEvaluator:
    def __init__(
        self,
        model_trace: Trace,
        has_enumerable_sites: bool = False,
        max_plate_nesting: int | None = None,
    ) -> None: ...
    def log_prob(self, model_trace: Trace) -> Tensor: ...

def initialize_model(
    model: Callable[..., object],
    model_args: tuple[Any, ...] = (),
    model_kwargs: Mapping[str, Any] = ...,
    transforms: Mapping[str, Transform] | None = None,
    max_plate_nesting: int | None = None,
    jit_compile: bool = False,
    jit_options: Mapping[str, Any] | None = None,
    skip_jit_warnings: bool = False,
    num_chains: int = 1,
    init_strategy: Callable[..., Any] = ...,
    initial_params: Mapping[str, Tensor] | None = None,
) -> tuple[
    dict[str, Tensor], Callable[[dict[str, Tensor]], Tensor], dict[str, Transform], Trace
]: ...
def diagnostics(
    samples: Mapping[str, Tensor], group_by_chain: bool = True
) -> dict[str, dict[str, Tensor]]: ...
def summary(
    samples: Mapping[str, Tensor], prob: float = 0.9, group_by_chain: bool = True
) -> dict[str, dict[str, Tensor]]: ...
def print_summary(
    samples: Mapping[str, Tensor], prob: float = 0.9, group_by_chain: bool = True
) -> None: ...
def predictive(
    model: Callable[..., object], posterior_samples: Mapping[str, Tensor], *args: Any, **kwargs: Any
) -> dict[str, Tensor]: ...
def select_samples(
    samples: Mapping[str, Tensor], num_samples: int | None = None, group_by_chain: bool = False
) -> dict[str, Tensor]: ...
def diagnostics_from_stats(
    statistics: Mapping[Any, Any], num_samples: int, num_chains: int
) -> dict[str, dict[str, Tensor]]: ...
