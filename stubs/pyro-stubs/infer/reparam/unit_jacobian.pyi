from pyro.infer.reparam.reparam import Reparam
from torch.distributions.transforms import Transform

class UnitJacobianReparam(Reparam):
    transform: Transform
    suffix: str
    experimental_allow_batch: bool
    def __init__(
        self,
        transform: Transform,
        suffix: str = "transformed",
        *,
        experimental_allow_batch: bool = False,
    ) -> None: ...
