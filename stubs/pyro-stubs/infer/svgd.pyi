from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from pyro.infer.autoguide.guides import AutoContinuous
from pyro.infer.elbo import ELBO
from pyro.optim.optim import PyroOptim
from torch import Tensor

def vectorize(
    fn: Callable[..., object], num_particles: int, max_plate_nesting: int
) -> Callable[..., Any]: ...

class SteinKernel(metaclass=ABCMeta):
    @abstractmethod
    def log_kernel_and_grad(self, particles: Tensor) -> tuple[Tensor, Tensor]: ...

class RBFSteinKernel(SteinKernel):
    bandwidth_factor: float
    def __init__(self, bandwidth_factor: float | None = None) -> None: ...
    def log_kernel_and_grad(self, particles: Tensor) -> tuple[Tensor, Tensor]: ...

class IMQSteinKernel(SteinKernel):
    alpha: float
    beta: float
    bandwidth_factor: float
    def __init__(
        self, alpha: float = 0.5, beta: float = -0.5, bandwidth_factor: float | None = None
    ) -> None: ...
    def log_kernel_and_grad(self, particles: Tensor) -> tuple[Tensor, Tensor]: ...

class SVGD:
    model: Callable[..., object]
    kernel: SteinKernel
    optim: PyroOptim
    num_particles: int
    max_plate_nesting: int
    mode: str
    guide: AutoContinuous
    loss: ELBO
    def __init__(
        self,
        model: Callable[..., object],
        kernel: SteinKernel,
        optim: PyroOptim,
        num_particles: int,
        max_plate_nesting: int,
        mode: Literal["univariate", "multivariate"] = "univariate",
    ) -> None: ...
    def get_named_particles(self) -> dict[str, Tensor]: ...
    def step(self, *args: Any, **kwargs: Any) -> dict[str, float]: ...
