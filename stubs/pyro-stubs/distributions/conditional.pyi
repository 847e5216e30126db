from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch.distributions
from pyro.distributions.torch import TransformedDistribution
from pyro.distributions.torch_transform import ComposeTransformModule
from torch import Tensor
from torch.distributions.transforms import Transform
from torch.nn import Module, ModuleList

class ConditionalDistribution(ABC):
    @abstractmethod
    def condition(self, context: Tensor) -> torch.distributions.Distribution: ...

class ConditionalTransform(ABC):
    @abstractmethod
    def condition(self, context: Tensor) -> Transform: ...

class ConditionalTransformModule(ConditionalTransform, Module, metaclass=ABCMeta):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def inv(self) -> ConditionalTransformModule: ...

class ConditionalComposeTransformModule(ConditionalTransformModule, ModuleList):
    transforms: list[ConditionalTransform]
    def __init__(
        self, transforms: Sequence[ConditionalTransform | Transform], cache_size: int = 0
    ) -> None: ...
    def condition(self, context: Tensor) -> ComposeTransformModule: ...

class ConstantConditionalDistribution(ConditionalDistribution):
    base_dist: torch.distributions.Distribution
    def __init__(self, base_dist: torch.distributions.Distribution) -> None: ...
    def condition(self, context: Tensor) -> torch.distributions.Distribution: ...

class ConstantConditionalTransform(ConditionalTransform):
    transform: Transform
    def __init__(self, transform: Transform) -> None: ...
    def condition(self, context: Tensor) -> Transform: ...
    def clear_cache(self) -> None: ...

class ConditionalTransformedDistribution(ConditionalDistribution):
    base_dist: ConditionalDistribution
    transforms: list[ConditionalTransform]
    def __init__(
        self,
        base_dist: ConditionalDistribution | torch.distributions.Distribution,
        transforms: Sequence[ConditionalTransform | Transform],
    ) -> None: ...
    def condition(self, context: Tensor) -> TransformedDistribution: ...
    def clear_cache(self) -> None: ...
