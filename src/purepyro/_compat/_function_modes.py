"""Functions whose operations no function mode has to look at."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch._C import DisableTorchFunction

P = ParamSpec("P")
T = TypeVar("T")


def quiet(function: Callable[P, T]) -> Callable[P, T]:
    """`function` with all function modes off, which look at every attribute of a tensor even."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        with DisableTorchFunction():
            return function(*args, **kwargs)

    return wrapper
