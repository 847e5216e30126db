from torch.distributions.transforms import Transform

class HaarTransform(Transform):
    dim: int
    flip: bool
    def __init__(self, dim: int = -1, flip: bool = False, cache_size: int = 0) -> None: ...
