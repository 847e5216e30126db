from typing import Any

from pyro.distributions.empirical import Empirical
from torch import Tensor

class SMCFailed(ValueError): ...

class SMCFilter:
    model: Any
    guide: Any
    num_particles: int
    max_plate_nesting: int
    ess_threshold: float
    state: SMCState
    def __init__(
        self,
        model: Any,
        guide: Any,
        num_particles: int,
        max_plate_nesting: int,
        *,
        ess_threshold: float = 0.5,
    ) -> None: ...
    def init(self, *args: Any, **kwargs: Any) -> None: ...
    def step(self, *args: Any, **kwargs: Any) -> None: ...
    def get_empirical(self) -> dict[str, Empirical]: ...

class SMCState(dict[str, Tensor]):
    def __init__(self, num_particles: int) -> None: ...
