from collections.abc import Callable

from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

class RandomWalkKernel(MCMCKernel):
    model: Callable[..., object]
    init_step_size: float
    target_accept_prob: float
    def __init__(
        self,
        model: Callable[..., object],
        init_step_size: float = 0.1,
        target_accept_prob: float = 0.234,
    ) -> None: ...
    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]: ...
