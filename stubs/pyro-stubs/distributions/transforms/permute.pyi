from collections.abc import Sequence

from torch import Tensor
from torch.distributions.transforms import Transform

class Permute(Transform):
    volume_preserving: bool
    permutation: Tensor
    dim: int
    def __init__(self, permutation: Tensor, *, dim: int = -1, cache_size: int = 1) -> None: ...
    @property
    def inv_permutation(self) -> Tensor: ...

def permute(
    input_dim: int | Sequence[int], permutation: Tensor | None = None, dim: int = -1
) -> Permute: ...
