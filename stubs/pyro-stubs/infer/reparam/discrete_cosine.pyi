from pyro.infer.reparam.unit_jacobian import UnitJacobianReparam

class DiscreteCosineReparam(UnitJacobianReparam):
    def __init__(
        self, dim: int = -1, smooth: float = 0.0, *, experimental_allow_batch: bool = False
    ) -> None: ...
