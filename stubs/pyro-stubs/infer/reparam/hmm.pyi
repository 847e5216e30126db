from pyro.infer.reparam.reparam import Reparam

class LinearHMMReparam(Reparam):
    init: Reparam | None
    trans: Reparam | None
    obs: Reparam | None
    def __init__(
        self, init: Reparam | None = None, trans: Reparam | None = None, obs: Reparam | None = None
    ) -> None: ...
