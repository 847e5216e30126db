"""torch's function modes, which see every call of a function of torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from ._private import private

P = ParamSpec("P")
T = TypeVar("T")

# A block in which tensors are themselves, whatever a mode would put in their place.
as_they_are: Callable[[], AbstractContextManager[object]] = private(
    "torch._C:DisableTorchFunction", "computing outside of function modes"
)
"""A block in which tensors are themselves, whatever a mode would put in their place."""
_depth: Callable[[], int] = private("torch._C:_len_torch_function_stack", "keyed blocks and runs")
_push: Callable[[TorchFunctionMode], None] = private(
    "torch._C:_push_on_torch_function_stack", "keyed blocks and runs"
)
_pop: Callable[[], object] = private("torch._C:_pop_torch_function_stack", "keyed blocks and runs")


def quiet(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with all function modes off, which look at every attribute of a tensor even."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with as_they_are():
            return function(*args, **kwargs)

    return wrapper


def mode_depth() -> int:
    """How many function modes are on."""
    return _depth()


def push_mode(mode: TorchFunctionMode) -> None:
    """Put a mode on, in one call into C, which no interrupt cuts short."""
    _push(mode)


def pop_modes(down_to: int) -> None:
    """Take off the innermost modes until so many are left; nothing happens the second time."""
    while _depth() > down_to:
        _pop()
