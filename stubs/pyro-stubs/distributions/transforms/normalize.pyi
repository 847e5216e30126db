from torch.distributions.transforms import Transform

class Normalize(Transform):
    p: float
    def __init__(self, p: float = 2, cache_size: int = 0) -> None: ...
