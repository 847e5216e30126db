from collections.abc import Callable
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

class BackwardSampleMessenger(Messenger):
    def __init__(self, enum_trace: Trace, guide_trace: Trace) -> None: ...

class TraceEnum_ELBO(ELBO):
    def loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
    def differentiable_loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Tensor: ...
    def loss_and_grads(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
    def compute_marginals(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> dict[str, TorchDistributionMixin]: ...
    def sample_posterior(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Any: ...

class JitTraceEnum_ELBO(TraceEnum_ELBO): ...
