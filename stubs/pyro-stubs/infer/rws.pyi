from collections.abc import Callable
from typing import Any

from pyro.infer.elbo import ELBO

class ReweightedWakeSleep(ELBO):
    insomnia: float
    model_has_params: bool
    num_sleep_particles: int
    def __init__(
        self,
        num_particles: int = 2,
        insomnia: float = 1.0,
        model_has_params: bool = True,
        num_sleep_particles: int | None = None,
        vectorize_particles: bool = True,
        max_plate_nesting: float = ...,
        strict_enumeration_warning: bool = True,
    ) -> None: ...
    def loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> tuple[float, float]: ...
    def loss_and_grads(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> tuple[float, float]: ...
