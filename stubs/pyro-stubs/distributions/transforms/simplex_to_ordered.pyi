from torch import Tensor
from torch.distributions.transforms import Transform

class SimplexToOrderedTransform(Transform):
    anchor_point: Tensor | float
    def __init__(self, anchor_point: Tensor | None = None) -> None: ...
