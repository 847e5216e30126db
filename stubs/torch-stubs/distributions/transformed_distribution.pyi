from typing import TypeVar

from torch.distributions.distribution import Distribution
from torch.distributions.transforms import Transform

_T = TypeVar("_T", bound=Transform)

class TransformedDistribution(Distribution):
    base_dist: Distribution
    transforms: list[Transform]
    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | list[_T],
        validate_args: bool | None = None,
    ) -> None: ...
