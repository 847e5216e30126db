from collections.abc import Callable
from typing import Any

from pyro.infer.autoguide.guides import AutoGuide
from pyro.nn.module import PyroModule
from torch import Tensor
from torch.distributions.constraints import Constraint

__all__ = ["AutoGaussian"]

class AutoGaussian(AutoGuide):
    scale_constraint: Constraint
    backends: dict[str, type[AutoGaussian]]
    default_backend: str
    locs: PyroModule
    scales: PyroModule
    white_vecs: PyroModule
    prec_sqrts: PyroModule
    def __init__(
        self,
        model: Callable[..., object],
        *,
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        backend: str | None = None,
    ) -> None: ...
    def _sample_aux_values(self, *, temperature: float) -> dict[str, Tensor]: ...

class AutoGaussianDense(AutoGaussian): ...
class AutoGaussianFunsor(AutoGaussian): ...
