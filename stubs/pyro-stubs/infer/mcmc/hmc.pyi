from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.mcmc.adaptation import ArrowheadMassMatrix, BlockMassMatrix
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor
from torch.distributions.transforms import Transform

class HMC(MCMCKernel):
    model: Callable[..., object] | None
    potential_fn: Callable[[dict[str, Tensor]], Tensor] | None
    transforms: Mapping[str, Transform] | None
    trajectory_length: float | None
    def __init__(
        self,
        model: Callable[..., object] | None = None,
        potential_fn: Callable[[dict[str, Tensor]], Tensor] | None = None,
        step_size: float = 1,
        trajectory_length: float | None = None,
        num_steps: int | None = None,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool | Sequence[tuple[str, ...]] = False,
        transforms: Mapping[str, Transform] | None = None,
        max_plate_nesting: int | None = None,
        jit_compile: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        ignore_jit_warnings: bool = False,
        target_accept_prob: float = 0.8,
        init_strategy: Callable[..., Any] = ...,
        *,
        min_stepsize: float = 1e-10,
        max_stepsize: float = 1e10,
    ) -> None: ...
    @property
    def mass_matrix_adapter(self) -> BlockMassMatrix | ArrowheadMassMatrix: ...
    @mass_matrix_adapter.setter
    def mass_matrix_adapter(self, value: BlockMassMatrix | ArrowheadMassMatrix) -> None: ...
    @property
    def inverse_mass_matrix(self) -> dict[tuple[str, ...], Tensor]: ...
    @property
    def step_size(self) -> float: ...
    @property
    def num_steps(self) -> int: ...
    def clear_cache(self) -> None: ...
    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]: ...
