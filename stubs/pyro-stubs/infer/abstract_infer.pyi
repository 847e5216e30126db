from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from pyro.distributions.empirical import Empirical
from pyro.poutine.trace_struct import Trace
from torch import Tensor

class EmpiricalMarginal(Empirical):
    def __init__(
        self,
        trace_posterior: TracePosterior,
        sites: str | Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None: ...

class Marginals:
    sites: list[str]
    def __init__(
        self,
        trace_posterior: TracePosterior,
        sites: str | Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    def support(self, flatten: bool = False) -> dict[str, Tensor]: ...
    @property
    def empirical(self) -> dict[str, EmpiricalMarginal]: ...

class TracePosterior(metaclass=ABCMeta):
    num_chains: int
    exec_traces: list[Trace]
    log_weights: list[Tensor | float]
    chain_ids: list[int]
    def __init__(self, num_chains: int = 1) -> None: ...
    def marginal(self, sites: str | Sequence[str] | None = None) -> Marginals: ...
    @abstractmethod
    def _traces(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Trace, Tensor | float]]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Trace: ...
    def run(self, *args: Any, **kwargs: Any) -> Self: ...
    def information_criterion(self, pointwise: bool = False) -> dict[str, Tensor]: ...

class TracePredictive(TracePosterior):
    model: Callable[..., object]
    posterior: TracePosterior
    num_samples: int
    keep_sites: Sequence[str] | None
    def __init__(
        self,
        model: Callable[..., object],
        posterior: TracePosterior,
        num_samples: int,
        keep_sites: Sequence[str] | None = None,
    ) -> None: ...
    def _traces(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Trace, Tensor | float]]: ...
