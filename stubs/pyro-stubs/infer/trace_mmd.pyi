from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pyro.infer.elbo import ELBO
from torch import Tensor
from torch.nn import Module

_Kernel: TypeAlias = Module | Mapping[str, Module]

class Trace_MMD(ELBO):
    kernel: _Kernel
    mmd_scale: float | Mapping[str, float]
    def __init__(
        self,
        kernel: _Kernel,
        mmd_scale: float | Mapping[str, float] = 1,
        num_particles: int = 10,
        max_plate_nesting: float = ...,
        max_iarange_nesting: float | None = None,
        vectorize_particles: bool = True,
        strict_enumeration_warning: bool = True,
        ignore_jit_warnings: bool = False,
        retain_graph: bool | None = None,
    ) -> None: ...
    def loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
    def differentiable_loss(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Tensor: ...
    def loss_and_grads(
        self, model: Callable[..., object], guide: Callable[..., object], *args: Any, **kwargs: Any
    ) -> float: ...
