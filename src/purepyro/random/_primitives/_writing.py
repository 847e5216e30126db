"""In-place random calls, also where vmap forbids to write in place."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..._compat._transforms import batch_levels
from .._source import KeySource


def fill(target: Tensor, value: Tensor) -> Tensor:
    """`target` with `value` written into it; a new tensor where that cannot be done.

    Under vmap a batch of values cannot be written into a tensor that has no batch. torch's
    distributions fill fresh buffers only, whose empty original is not used afterwards.
    """
    if batch_levels(value) <= batch_levels(target):
        return target.copy_(value)
    return value.to(target.dtype)


def in_place(function: Callable[..., object]) -> Callable[..., Tensor]:
    """The in-place version of a keyed function: `torch.dropout_` from `torch.dropout`."""

    def written(source: KeySource, target: Tensor, *args: object, **named: object) -> Tensor:
        found = function(source, target, *args, **named)
        assert isinstance(found, Tensor)
        return target if found is target else fill(target, found)

    return written
