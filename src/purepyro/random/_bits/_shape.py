"""How the shape of a draw is shared out among the keys of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..._core._whole_numbers import whole
from ..._errors import ShapeError, describe
from .._key import Key

Shape = int | Sequence[int]


class Plan(NamedTuple):
    """`size` numbers from each of `keys` (*lead, 2), to be reshaped to `shape`."""

    keys: Tensor
    size: int
    shape: tuple[int, ...]


def flat(shape: tuple[Shape, ...]) -> tuple[int, ...]:
    """The shape that `*shape` means: some integers, or one sequence of them.

    Raises:
        ShapeError: If one of them is no integer, or negative.
    """
    first = shape[0] if len(shape) == 1 else shape
    sizes = first if isinstance(first, Sequence) else shape
    found = [whole(size, 0) for size in sizes]
    wanted = tuple(size for size in found if size is not None)
    if len(wanted) < len(found):
        raise _no_shape(sizes, sizes[found.index(None)])
    return wanted


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape with which all of `shapes` broadcast."""
    return np.broadcast_shapes(*(tuple(shape) for shape in shapes))


def plan(key: Key, shape: tuple[int, ...]) -> Plan:
    """How to draw `shape` from `key`.

    One key draws all of it. The batch of a stack of keys stands for the leading dimensions of
    `shape`, and broadcasts with them: trailing dimensions that it lacks, or in which it has size 1,
    are drawn by each key from its own stream.

    Raises:
        ShapeError: If a size is negative, or the batch of keys does not broadcast with the leading
            dimensions.
    """
    if min(shape, default=0) < 0:
        raise _no_shape(shape, min(shape))
    batch = tuple(key.shape[:-1])
    if not batch:
        return Plan(key, prod(shape), shape)
    if len(batch) > len(shape):
        raise ShapeError(_mismatch(key, shape))
    lead = len(batch)
    while lead and batch[lead - 1] == 1:
        lead -= 1
    if any(have not in (1, want) for have, want in zip(batch[:lead], shape, strict=False)):
        raise ShapeError(_mismatch(key, shape))
    keys = key.reshape(*batch[:lead], 2).expand((*shape[:lead], 2))
    return Plan(keys, prod(shape[lead:]), shape)


def _no_shape(shape: object, size: object) -> ShapeError:
    return ShapeError(
        f"The shape to draw is {describe(shape)}, and {describe(size)} is no size. A draw has a "
        "whole number of elements, 0 or more, in each dimension. Write integers, "
        "`random.normal(key, 2, 3)`, or one tuple of them."
    )


def _mismatch(key: Key, shape: tuple[int, ...]) -> str:
    return (
        f"The keys are {describe(key)} and the shape to draw is {list(shape)}. The batch of the "
        f"keys, here {list(key.shape[:-1])}, must be the leading dimensions of the shape, so that "
        "each key draws its own slice. Or draw one key's share under `torch.vmap`."
    )
