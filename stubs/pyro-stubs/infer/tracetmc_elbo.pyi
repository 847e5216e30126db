from collections.abc import Callable
from typing import Any

from pyro.infer.elbo import ELBO
from torch import Tensor

class TraceTMC_ELBO(ELBO):
    def loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
    def differentiable_loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Tensor: ...
    def loss_and_grads(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
