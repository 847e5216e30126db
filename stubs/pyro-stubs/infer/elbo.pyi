from abc import ABCMeta
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

class ELBOModule(Module):
    model: Module
    guide: Module
    elbo: ELBO
    def __init__(self, model: Module, guide: Module, elbo: ELBO) -> None: ...
    def forward(self, *args: Any, **kwargs: Any) -> Tensor: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Tensor: ...

class ELBO(metaclass=ABCMeta):
    num_particles: int
    max_plate_nesting: float
    vectorize_particles: bool
    retain_graph: bool | None
    ignore_jit_warnings: bool
    jit_options: Mapping[str, Any]
    strict_enumeration_warning: bool
    tail_adaptive_beta: float
    def __init__(
        self,
        num_particles: int = 1,
        max_plate_nesting: float = ...,
        max_iarange_nesting: float | None = None,
        vectorize_particles: bool = False,
        strict_enumeration_warning: bool = True,
        ignore_jit_warnings: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        retain_graph: bool | None = None,
        tail_adaptive_beta: float = -1.0,
    ) -> None: ...
    def __call__(self, model: Module, guide: Module) -> ELBOModule: ...
