from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar, overload

from pyro.infer.autoguide.structured import AutoStructured
from pyro.infer.reparam.reparam import Reparam
from pyro.poutine.reparam_messenger import ReparamHandler, ReparamMessenger
from torch import Tensor

_P = ParamSpec("_P")
_T = TypeVar("_T")

class StructuredReparam(Reparam):
    guide: AutoStructured
    def __init__(self, guide: AutoStructured) -> None: ...
    @overload
    def reparam(self, fn: None = None) -> ReparamMessenger: ...
    @overload
    def reparam(self, fn: Callable[_P, _T]) -> ReparamHandler[_P, _T]: ...
    def transform_samples(
        self, aux_samples: Mapping[str, Tensor], save_params: Sequence[str] | None = None
    ) -> dict[str, Tensor]: ...
