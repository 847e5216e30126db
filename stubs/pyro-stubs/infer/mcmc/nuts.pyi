from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.mcmc.hmc import HMC
from torch import Tensor
from torch.distributions.transforms import Transform

class NUTS(HMC):
    use_multinomial_sampling: bool
    def __init__(
        self,
        model: Callable[..., object] | None = None,
        potential_fn: Callable[[dict[str, Tensor]], Tensor] | None = None,
        step_size: float = 1,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        full_mass: bool | Sequence[tuple[str, ...]] = False,
        use_multinomial_sampling: bool = True,
        transforms: Mapping[str, Transform] | None = None,
        max_plate_nesting: int | None = None,
        jit_compile: bool = False,
        jit_options: Mapping[str, Any] | None = None,
        ignore_jit_warnings: bool = False,
        target_accept_prob: float = 0.8,
        max_tree_depth: int = 10,
        init_strategy: Callable[..., Any] = ...,
    ) -> None: ...
