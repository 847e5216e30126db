from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.optim.optim import PyroOptim
from torch import Tensor
from torch.optim import Optimizer

class MultiOptimizer:
    def step(self, loss: Tensor, params: dict[str, Tensor]) -> None: ...
    def get_step(self, loss: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]: ...

class PyroMultiOptimizer(MultiOptimizer):
    optim: PyroOptim
    def __init__(self, optim: PyroOptim) -> None: ...

class TorchMultiOptimizer(PyroMultiOptimizer):
    def __init__(
        self, optim_constructor: Callable[..., Optimizer], optim_args: Mapping[str, Any]
    ) -> None: ...

class MixedMultiOptimizer(MultiOptimizer):
    parts: Sequence[tuple[Sequence[str], MultiOptimizer]]
    def __init__(
        self, parts: Sequence[tuple[Sequence[str], MultiOptimizer | PyroOptim]]
    ) -> None: ...

class Newton(MultiOptimizer):
    trust_radii: Mapping[str, float]
    def __init__(self, trust_radii: Mapping[str, float] = ...) -> None: ...
