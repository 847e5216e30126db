"""In-place random calls, also where vmap forbids to write in place."""

from __future__ import annotations

from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    maybe_get_level,
)


def fill(target: Tensor, value: Tensor) -> Tensor:
    """`target` with `value` written into it; a new tensor where that cannot be done.

    Under vmap a value of its own for each lane cannot be written into a tensor that all lanes
    share. torch.distributions fill fresh buffers only, of which nobody keeps the empty original.
    """
    if _lanes(value) <= _lanes(target):
        return target.copy_(value)
    return value.to(target.dtype)


def _lanes(value: Tensor) -> frozenset[int]:
    """The levels of vmap at which `value` has a lane of its own."""
    found = []
    while is_functorch_wrapped_tensor(value):
        if is_batchedtensor(value):
            found.append(maybe_get_level(value))
        value = get_unwrapped(value)
    return frozenset(found)
