from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.ops.streaming import StreamingStats
from torch import Tensor
from torch.distributions.transforms import Transform

class AbstractMCMC(ABC):
    kernel: MCMCKernel
    num_chains: int
    transforms: Mapping[str, Transform] | None
    def __init__(
        self, kernel: MCMCKernel, num_chains: int, transforms: Mapping[str, Transform] | None
    ) -> None: ...
    @abstractmethod
    def run(self, *args: Any, **kwargs: Any) -> None: ...
    @abstractmethod
    def diagnostics(self) -> dict[str, Any]: ...

class MCMC(AbstractMCMC):
    num_samples: int
    warmup_steps: int
    def __init__(
        self,
        kernel: MCMCKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Mapping[str, Tensor] | None = None,
        num_chains: int = 1,
        hook_fn: Callable[[MCMCKernel, Mapping[str, Tensor], str, int], object] | None = None,
        mp_context: str | None = None,
        disable_progbar: bool = False,
        disable_validation: bool = True,
        transforms: Mapping[str, Transform] | None = None,
        save_params: Sequence[str] | None = None,
    ) -> None: ...
    def run(self, *args: Any, **kwargs: Any) -> None: ...
    def get_samples(
        self, num_samples: int | None = None, group_by_chain: bool = False
    ) -> dict[str, Tensor]: ...
    def diagnostics(self) -> dict[str, Any]: ...
    def summary(self, prob: float = 0.9) -> None: ...

class StreamingMCMC(AbstractMCMC):
    num_samples: int
    warmup_steps: int
    def __init__(
        self,
        kernel: MCMCKernel,
        num_samples: int,
        warmup_steps: int | None = None,
        initial_params: Mapping[str, Tensor] | None = None,
        statistics: StreamingStats | None = None,
        num_chains: int = 1,
        hook_fn: Callable[[MCMCKernel, Mapping[str, Tensor], str, int], object] | None = None,
        disable_progbar: bool = False,
        disable_validation: bool = True,
        transforms: Mapping[str, Transform] | None = None,
        save_params: Sequence[str] | None = None,
    ) -> None: ...
    def run(self, *args: Any, **kwargs: Any) -> None: ...
    def get_statistics(self, group_by_chain: bool = True) -> dict[Any, Any]: ...
    def diagnostics(self) -> dict[str, Any]: ...
