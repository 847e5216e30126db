from typing import Any, Self, TypeAlias

from pyro.distributions.torch import Categorical, Gamma, Independent, MultivariateNormal
from pyro.distributions.torch_distribution import TorchDistribution, TorchDistributionMixin
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.types import _size

_Normal: TypeAlias = Independent | MultivariateNormal

class HiddenMarkovModel(TorchDistribution):
    def __init__(
        self,
        duration: int | None,
        batch_shape: _size,
        event_shape: _size,
        validate_args: bool | None = None,
    ) -> None: ...
    @property
    def duration(self) -> int: ...

class DiscreteHMM(HiddenMarkovModel):
    initial_logits: Tensor
    transition_logits: Tensor
    observation_dist: TorchDistributionMixin
    def __init__(
        self,
        initial_logits: Tensor,
        transition_logits: Tensor,
        observation_dist: TorchDistributionMixin,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
    def filter(self, value: Tensor) -> Categorical: ...

class GaussianHMM(HiddenMarkovModel):
    hidden_dim: int
    obs_dim: int
    def __init__(
        self,
        initial_dist: _Normal,
        transition_matrix: Tensor,
        transition_dist: _Normal,
        observation_matrix: Tensor,
        observation_dist: _Normal,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
    def rsample_posterior(self, value: Tensor, sample_shape: _size = ...) -> Tensor: ...
    def filter(self, value: Tensor) -> MultivariateNormal: ...
    def prefix_condition(self, data: Tensor) -> GaussianHMM: ...

class GammaGaussianHMM(HiddenMarkovModel):
    hidden_dim: int
    obs_dim: int
    def __init__(
        self,
        scale_dist: Gamma,
        initial_dist: MultivariateNormal,
        transition_matrix: Tensor,
        transition_dist: MultivariateNormal,
        observation_matrix: Tensor,
        observation_dist: MultivariateNormal,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
    def filter(self, value: Tensor) -> tuple[Gamma, MultivariateNormal]: ...

class LinearHMM(HiddenMarkovModel):
    hidden_dim: int
    obs_dim: int
    initial_dist: TorchDistributionMixin
    transition_matrix: Tensor
    transition_dist: TorchDistributionMixin
    observation_matrix: Tensor
    observation_dist: TorchDistributionMixin
    transforms: list[Transform]
    def __init__(
        self,
        initial_dist: TorchDistributionMixin,
        transition_matrix: Tensor,
        transition_dist: TorchDistributionMixin,
        observation_matrix: Tensor,
        observation_dist: TorchDistributionMixin,
        validate_args: bool | None = None,
        duration: int | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class IndependentHMM(TorchDistribution):
    base_dist: HiddenMarkovModel
    def __init__(self, base_dist: HiddenMarkovModel) -> None: ...
    @property
    def duration(self) -> int: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...

class GaussianMRF(TorchDistribution):
    hidden_dim: int
    obs_dim: int
    def __init__(
        self,
        initial_dist: _Normal,
        transition_dist: _Normal,
        observation_dist: _Normal,
        validate_args: bool | None = None,
    ) -> None: ...
    def expand(self, batch_shape: _size, _instance: Any = None) -> Self: ...
