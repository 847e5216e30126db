from typing import Generic

from torch.distributions.distribution import Distribution
from typing_extensions import TypeVar

_D_co = TypeVar("_D_co", bound=Distribution, default=Distribution, covariant=True)

class Independent(Distribution, Generic[_D_co]):
    base_dist: _D_co
    reinterpreted_batch_ndims: int
    def __init__(
        self,
        base_distribution: _D_co,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None: ...
