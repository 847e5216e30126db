from typing import Any, Self

from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor
from torch.types import _size

class ZeroInflatedDistribution(TorchDistribution):
    base_dist: TorchDistributionMixin
    def __init__(
        self,
        base_dist: TorchDistributionMixin,
        *,
        gate: Tensor | float | None = None,
        gate_logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def gate(self) -> Tensor: ...
    @property
    def gate_logits(self) -> Tensor: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class ZeroInflatedPoisson(ZeroInflatedDistribution):
    def __init__(
        self,
        rate: Tensor | float,
        *,
        gate: Tensor | float | None = None,
        gate_logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def rate(self) -> Tensor: ...

class ZeroInflatedNegativeBinomial(ZeroInflatedDistribution):
    def __init__(
        self,
        total_count: Tensor | float,
        *,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        gate: Tensor | float | None = None,
        gate_logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def total_count(self) -> Tensor: ...
    @property
    def probs(self) -> Tensor: ...
    @property
    def logits(self) -> Tensor: ...
