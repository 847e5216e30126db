from collections.abc import Sequence
from typing import Literal

from pyro.distributions.torch_transform import TransformModule
from pyro.distributions.transforms.spline import ConditionalSpline, Spline
from torch.nn import Module

class SplineCoupling(TransformModule):
    split_dim: int
    identity: bool
    lower_spline: Spline
    upper_spline: ConditionalSpline
    def __init__(
        self,
        input_dim: int,
        split_dim: int,
        hypernet: Module,
        count_bins: int = 8,
        bound: float = 3.0,
        order: Literal["linear", "quadratic"] = "linear",
        identity: bool = False,
    ) -> None: ...

def spline_coupling(
    input_dim: int,
    split_dim: int | None = None,
    hidden_dims: Sequence[int] | None = None,
    count_bins: int = 8,
    bound: float = 3.0,
) -> SplineCoupling: ...
