from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pyro.poutine.runtime import Message
from torch import Tensor

def deep_setattr(obj: object, key: str, val: object) -> None: ...
def mean_field_entropy(
    model: Callable[..., object], args: tuple[Any, ...], whitelist: Sequence[str] | None = None
) -> Tensor: ...
def helpful_support_errors(site: Message) -> AbstractContextManager[None]: ...
