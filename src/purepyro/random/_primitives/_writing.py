"""In-place random calls, also where vmap forbids to write in place."""

from __future__ import annotations

from torch import Tensor

from ..._compat._transforms import batch_levels


def fill(target: Tensor, value: Tensor) -> Tensor:
    """`target` with `value` written into it; a new tensor where that cannot be done.

    Under vmap a value of its own for each lane cannot be written into a tensor that all lanes
    share. torch.distributions fill fresh buffers only, of which nobody keeps the empty original.
    """
    if batch_levels(value) <= batch_levels(target):
        return target.copy_(value)
    return value.to(target.dtype)
