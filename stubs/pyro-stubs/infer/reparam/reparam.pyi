from abc import ABC
from typing import TypedDict

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

class ReparamMessage(TypedDict):
    name: str
    fn: TorchDistributionMixin
    value: Tensor | None
    is_observed: bool | None

class ReparamResult(TypedDict):
    fn: TorchDistributionMixin
    value: Tensor | None
    is_observed: bool

class Reparam(ABC):
    def apply(self, msg: ReparamMessage) -> ReparamResult: ...
    def __call__(
        self, name: str, fn: TorchDistributionMixin, obs: Tensor | None
    ) -> tuple[TorchDistributionMixin | None, Tensor | None]: ...
    def _unwrap(self, fn: TorchDistributionMixin) -> tuple[TorchDistributionMixin, int]: ...
    def _wrap(self, fn: TorchDistributionMixin, event_dim: int) -> TorchDistributionMixin: ...
