from torch.distributions.transforms import Transform

class DiscreteCosineTransform(Transform):
    dim: int
    smooth: float
    def __init__(self, dim: int = -1, smooth: float = 0.0, cache_size: int = 0) -> None: ...
