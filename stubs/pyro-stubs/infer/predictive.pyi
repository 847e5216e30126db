from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.importance import LogWeightsMixin
from pyro.infer.util import CloneMixin
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.nn import Module

class Predictive(Module):
    model: Callable[..., object]
    guide: Callable[..., object] | None
    num_samples: int
    posterior_samples: Mapping[str, Tensor]
    return_sites: Sequence[str] | None
    parallel: bool
    def __init__(
        self,
        model: Callable[..., object],
        posterior_samples: Mapping[str, Tensor] | None = None,
        guide: Callable[..., object] | None = None,
        num_samples: int | None = None,
        return_sites: Sequence[str] | None = (),
        parallel: bool = False,
    ) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def call(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]: ...
    def get_samples(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def get_vectorized_trace(self, *args: Any, **kwargs: Any) -> Trace: ...

class WeighedPredictiveResults(LogWeightsMixin, CloneMixin):
    samples: dict[str, Tensor] | tuple[Any, ...]
    log_weights: Tensor
    guide_log_prob: Tensor
    model_log_prob: Tensor
    def __init__(
        self,
        samples: dict[str, Tensor] | tuple[Any, ...],
        log_weights: Tensor,
        guide_log_prob: Tensor,
        model_log_prob: Tensor,
    ) -> None: ...

class WeighedPredictive(Predictive):
    def __call__(self, *args: Any, **kwargs: Any) -> WeighedPredictiveResults: ...  # type: ignore[override]
    def forward(self, *args: Any, **kwargs: Any) -> WeighedPredictiveResults: ...  # type: ignore[override]
    def call(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]: ...

class MHResampler(Module):
    sampler: Callable[..., WeighedPredictiveResults]
    transition_count: Tensor
    def __init__(
        self,
        sampler: Callable[..., WeighedPredictiveResults],
        source_samples_slice: slice = ...,
        stored_samples_slice: slice = ...,
    ) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> WeighedPredictiveResults: ...
    def forward(self, *args: Any, **kwargs: Any) -> WeighedPredictiveResults: ...
    def get_min_sample_transition_count(self) -> Tensor: ...
    def get_total_transition_count(self) -> Tensor: ...
    def get_source_samples(self) -> WeighedPredictiveResults: ...
    def get_stored_samples(self) -> WeighedPredictiveResults: ...
    def get_samples(self, samples: list[WeighedPredictiveResults]) -> WeighedPredictiveResults: ...
