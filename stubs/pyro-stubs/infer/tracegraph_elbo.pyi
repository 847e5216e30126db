from collections.abc import Callable
from typing import Any

from pyro.infer.elbo import ELBO
from pyro.poutine.messenger import Messenger

class TrackNonReparam(Messenger): ...

class TraceGraph_ELBO(ELBO):
    def loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
    def loss_and_grads(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...

class JitTraceGraph_ELBO(TraceGraph_ELBO): ...
