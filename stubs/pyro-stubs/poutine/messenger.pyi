from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from pyro.poutine.runtime import _PYRO_STACK as _PYRO_STACK
from pyro.poutine.runtime import Message

_P = ParamSpec("_P")
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., object])

class _bound_partial(partial[_T]):
    def __init__(self, func: Callable[..., _T]) -> None: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> partial[_T]: ...

def unwrap(fn: Callable[..., Any]) -> Callable[..., Any]: ...

class Messenger:
    def __call__(self, fn: Callable[_P, _T]) -> Callable[_P, _T]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def _reset(self) -> None: ...
    def _process_message(self, msg: Message) -> None: ...
    def _postprocess_message(self, msg: Message) -> None: ...
    @overload
    @classmethod
    def register(
        cls, fn: None = None, type: str | None = None, post: bool | None = None
    ) -> Callable[[_F], _F]: ...
    @overload
    @classmethod
    def register(cls, fn: _F, type: str | None = None, post: bool | None = None) -> _F: ...
    @overload
    @classmethod
    def unregister(cls, fn: None = None, type: str | None = None) -> Callable[[_F], _F]: ...
    @overload
    @classmethod
    def unregister(cls, fn: _F, type: str | None = None) -> _F: ...

def block_messengers(
    predicate: Callable[[Messenger], bool],
) -> AbstractContextManager[list[Messenger]]: ...
