from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ParamSpec, TypeVar, overload

from pyro.infer.reparam.reparam import Reparam
from pyro.poutine.runtime import Message

_P = ParamSpec("_P")
_T = TypeVar("_T")

class Strategy(ABC):
    config: dict[str, Reparam | None]
    def __init__(self) -> None: ...
    @abstractmethod
    def configure(self, msg: Message) -> Reparam | None: ...
    @overload
    def __call__(self, msg_or_fn: Message) -> Reparam | None: ...
    @overload
    def __call__(self, msg_or_fn: Callable[_P, _T]) -> Callable[_P, _T]: ...

class MinimalReparam(Strategy):
    def configure(self, msg: Message) -> Reparam | None: ...

class AutoReparam(Strategy):
    centered: float | None
    def __init__(self, *, centered: float | None = None) -> None: ...
    def configure(self, msg: Message) -> Reparam | None: ...
