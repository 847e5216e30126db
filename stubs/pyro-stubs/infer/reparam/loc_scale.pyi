from collections.abc import Sequence

from pyro.infer.reparam.reparam import Reparam

class LocScaleReparam(Reparam):
    centered: float | None
    shape_params: Sequence[str] | None
    def __init__(
        self, centered: float | None = None, shape_params: Sequence[str] | None = None
    ) -> None: ...
