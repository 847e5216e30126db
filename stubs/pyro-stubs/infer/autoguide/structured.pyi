from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.autoguide.guides import AutoGuide
from torch import Tensor
from torch.distributions.constraints import Constraint

class AutoStructured(AutoGuide):
    scale_constraint: Constraint
    scale_tril_constraint: Constraint
    def __init__(
        self,
        model: Callable[..., object],
        *,
        conditionals: str | Mapping[str, str | Callable[..., Any]] = "mvn",
        dependencies: str | Mapping[str, Mapping[str, str | Callable[..., Any]]] = "linear",
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        create_plates: Callable[..., Any] | None = None,
    ) -> None: ...
    def get_deltas(self, save_params: Sequence[str] | None = None) -> dict[str, Tensor]: ...
