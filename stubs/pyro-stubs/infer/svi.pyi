from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from pyro.infer.abstract_infer import TracePosterior
from pyro.infer.elbo import ELBO
from pyro.infer.energy_distance import EnergyDistance
from pyro.optim.optim import PyroOptim
from pyro.poutine.trace_struct import Trace
from torch import Tensor

_Loss: TypeAlias = ELBO | EnergyDistance | Callable[..., Tensor | float]

class SVI(TracePosterior):
    model: Callable[..., object]
    guide: Callable[..., object]
    optim: PyroOptim
    loss: Callable[..., Any]
    loss_and_grads: Callable[..., Any]
    num_steps: int
    num_samples: int
    def __init__(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        optim: PyroOptim,
        loss: _Loss,
        loss_and_grads: Callable[..., Any] | None = None,
        num_samples: int = 0,
        num_steps: int = 0,
        **kwargs: Any,
    ) -> None: ...
    def _traces(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Trace, Tensor | float]]: ...
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float: ...
    def step(self, *args: Any, **kwargs: Any) -> float: ...
