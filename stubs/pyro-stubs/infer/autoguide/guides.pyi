from collections.abc import Callable, Sequence
from typing import Any

from pyro.distributions.torch import Independent, LowRankMultivariateNormal, MultivariateNormal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn.module import PyroModule
from pyro.poutine.runtime import Message
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform
from torch.nn import ModuleList

def prototype_hide_fn(msg: Message) -> bool: ...

class AutoGuide(PyroModule):
    plates: dict[str, Any]
    prototype_trace: Trace | None
    create_plates: Callable[..., Any] | None
    def __init__(
        self, model: Callable[..., object], *, create_plates: Callable[..., Any] | None = None
    ) -> None: ...
    @property
    def model(self) -> Callable[..., Any]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def call(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]: ...
    def sample_latent(self, *args: Any, **kwargs: Any) -> Tensor: ...
    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None: ...
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...

class AutoGuideList(AutoGuide, ModuleList):
    def append(self, part: AutoGuide | Callable[..., object]) -> None: ...  # type: ignore[override]
    def add(self, part: AutoGuide | Callable[..., object]) -> None: ...
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
    def quantiles(
        self, quantiles: Tensor | Sequence[float], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]: ...

class AutoCallable(AutoGuide):
    def __init__(
        self,
        model: Callable[..., object],
        guide: Callable[..., object],
        median: Callable[..., dict[str, Tensor]] = ...,
    ) -> None: ...

class AutoDelta(AutoGuide):
    init_loc_fn: Callable[..., Any]
    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Callable[..., Any] = ...,
        *,
        create_plates: Callable[..., Any] | None = None,
    ) -> None: ...

class AutoNormal(AutoGuide):
    scale_constraint: Constraint
    init_loc_fn: Callable[..., Any]
    locs: PyroModule
    scales: PyroModule
    def __init__(
        self,
        model: Callable[..., object],
        *,
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        create_plates: Callable[..., Any] | None = None,
    ) -> None: ...
    def quantiles(
        self, quantiles: Tensor | Sequence[float], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]: ...

class AutoContinuous(AutoGuide):
    latent_dim: int
    def __init__(
        self, model: Callable[..., object], init_loc_fn: Callable[..., Any] = ...
    ) -> None: ...
    def get_base_dist(self) -> TorchDistributionMixin: ...
    def get_transform(self, *args: Any, **kwargs: Any) -> Transform: ...
    def get_posterior(self, *args: Any, **kwargs: Any) -> TorchDistributionMixin: ...
    def quantiles(
        self, quantiles: Tensor | Sequence[float], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]: ...

class AutoMultivariateNormal(AutoContinuous):
    scale_constraint: Constraint
    scale_tril_constraint: Constraint
    loc: Tensor
    scale: Tensor
    scale_tril: Tensor
    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
    ) -> None: ...
    def get_posterior(self, *args: Any, **kwargs: Any) -> MultivariateNormal: ...

class AutoDiagonalNormal(AutoContinuous):
    scale_constraint: Constraint
    loc: Tensor
    scale: Tensor
    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
    ) -> None: ...
    def get_posterior(self, *args: Any, **kwargs: Any) -> Independent: ...

class AutoLowRankMultivariateNormal(AutoContinuous):
    scale_constraint: Constraint
    loc: Tensor
    scale: Tensor
    cov_factor: Tensor
    rank: int | None
    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Callable[..., Any] = ...,
        init_scale: float = 0.1,
        rank: int | None = None,
    ) -> None: ...
    def get_posterior(self, *args: Any, **kwargs: Any) -> LowRankMultivariateNormal: ...

class AutoNormalizingFlow(AutoContinuous):
    transform: Transform | None
    def __init__(
        self, model: Callable[..., object], init_transform_fn: Callable[[int], Transform]
    ) -> None: ...

class AutoIAFNormal(AutoNormalizingFlow):
    def __init__(
        self,
        model: Callable[..., object],
        hidden_dim: Sequence[int] | int | None = None,
        init_loc_fn: Callable[..., Any] | None = None,
        num_transforms: int = 1,
        **init_transform_kwargs: Any,
    ) -> None: ...

class AutoLaplaceApproximation(AutoContinuous):
    loc: Tensor
    def laplace_approximation(self, *args: Any, **kwargs: Any) -> AutoMultivariateNormal: ...
    def get_posterior(self, *args: Any, **kwargs: Any) -> TorchDistributionMixin: ...

class AutoDiscreteParallel(AutoGuide):
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]: ...
