from pyro.infer.reparam.unit_jacobian import UnitJacobianReparam

class HaarReparam(UnitJacobianReparam):
    def __init__(
        self, dim: int = -1, flip: bool = False, *, experimental_allow_batch: bool = False
    ) -> None: ...
