from collections.abc import Callable, Sequence
from typing import Any

from pyro.infer.importance import Importance
from pyro.optim.optim import PyroOptim
from pyro.poutine.trace_struct import Trace

class CSIS(Importance):
    model: Callable[..., object]
    guide: Callable[..., object]
    optim: PyroOptim
    training_batch_size: int
    validation_batch_size: int
    def __init__(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        optim: PyroOptim,
        num_inference_samples: int = 10,
        training_batch_size: int = 10,
        validation_batch_size: int = 20,
    ) -> None: ...
    def set_validation_batch(self, *args: Any, **kwargs: Any) -> None: ...
    def step(self, *args: Any, **kwargs: Any) -> float: ...
    def loss_and_grads(
        self, grads: bool, batch: Sequence[Trace] | None, *args: Any, **kwargs: Any
    ) -> float: ...
    def validation_loss(self, *args: Any, **kwargs: Any) -> float: ...
