from torch import Tensor
from torch.distributions.transforms import Transform

class LowerCholeskyAffine(Transform):
    volume_preserving: bool
    loc: Tensor
    scale_tril: Tensor
    def __init__(self, loc: Tensor, scale_tril: Tensor, cache_size: int = 0) -> None: ...
