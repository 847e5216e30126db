from typing import Any, Self

from pyro.distributions.torch import Normal
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.types import _size

class GroupedNormalNormal(TorchDistribution):
    prior_loc: Tensor
    prior_scale: Tensor
    obs_scale: Tensor
    group_idx: Tensor
    num_groups: int
    def __init__(
        self,
        prior_loc: Tensor | float,
        prior_scale: Tensor | float,
        obs_scale: Tensor | float,
        group_idx: Tensor,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
    def get_posterior(self, value: Tensor) -> Normal: ...
