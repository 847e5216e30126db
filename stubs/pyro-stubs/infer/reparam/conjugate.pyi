from collections.abc import Callable

from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer.reparam.reparam import Reparam

class ConjugateReparam(Reparam):
    guide: TorchDistributionMixin | Callable[..., TorchDistributionMixin]
    def __init__(
        self, guide: TorchDistributionMixin | Callable[..., TorchDistributionMixin]
    ) -> None: ...
