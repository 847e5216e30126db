from collections.abc import Callable
from typing import Any

from torch import Tensor

class EnergyDistance:
    beta: float
    prior_scale: float
    num_particles: int
    max_plate_nesting: float
    def __init__(
        self,
        beta: float = 1.0,
        prior_scale: float = 0.0,
        num_particles: int = 2,
        max_plate_nesting: float = ...,
    ) -> None: ...
    def __call__(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Tensor: ...
    def loss(self, *args: Any, **kwargs: Any) -> float: ...
