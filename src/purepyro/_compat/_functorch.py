"""Whether a tensor's values can be read here and now."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import (
    get_unwrapped,
    is_functorch_wrapped_tensor,
    is_gradtrackingtensor,
    peek_interpreter_stack,
)
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

Words64 = NDArray[np.uint64]


def readable(key: Tensor) -> Words64 | None:
    """The words of keys as (keys, 2), or None if they cannot or must not be read.

    They must not under vmap (each lane has its own), while a graph is traced, or on another device
    (reading would wait for it). Under `torch.func.grad` they can.
    """
    value = plain(key)
    if value is None:
        return None
    with outside_transforms():
        return value.numpy().reshape(-1, 2).view(np.uint64)


def plain(value: Tensor) -> Tensor | None:
    """The plain CPU tensor behind `value`, or None if its values cannot or must not be read."""
    if torch.compiler.is_compiling() or _len_torch_dispatch_stack():
        return None
    while is_functorch_wrapped_tensor(value):
        if not is_gradtrackingtensor(value):
            return None
        value = get_unwrapped(value)
    return value if type(value) is Tensor and value.device.type == "cpu" else None


def outside_transforms() -> AbstractContextManager[object]:
    """A block in which plain tensors stay plain although a transform of torch.func is running."""
    if peek_interpreter_stack() is None:
        return _NOTHING
    return temporarily_clear_interpreter_stack()


_NOTHING = nullcontext()
