from collections.abc import Callable
from typing import ParamSpec, TypeVar, overload

from pyro.infer.autoguide.guides import AutoContinuous
from pyro.infer.reparam.reparam import Reparam
from pyro.poutine.reparam_messenger import ReparamHandler, ReparamMessenger
from torch import Tensor

_P = ParamSpec("_P")
_T = TypeVar("_T")

class NeuTraReparam(Reparam):
    guide: AutoContinuous
    def __init__(self, guide: AutoContinuous) -> None: ...
    @overload
    def reparam(self, fn: None = None) -> ReparamMessenger: ...
    @overload
    def reparam(self, fn: Callable[_P, _T]) -> ReparamHandler[_P, _T]: ...
    def transform_sample(self, latent: Tensor) -> dict[str, Tensor]: ...
