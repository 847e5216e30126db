"""Random integers from random words."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._errors import describe
from .._key import Key, signed
from ._constants import MASK32
from ._shape import Plan, plan
from ._words import wide_words, words

# The exact range of each dtype, upper bound excluded.
_RANGES = {
    torch.int8: (-(1 << 7), 1 << 7),
    torch.int16: (-(1 << 15), 1 << 15),
    torch.int32: (-(1 << 31), 1 << 31),
    torch.int64: (-(1 << 63), 1 << 63),
    torch.uint8: (0, 1 << 8),
    torch.uint16: (0, 1 << 16),
    torch.uint32: (0, 1 << 32),
    torch.uint64: (0, 1 << 64),
}
_SIGN = -(1 << 63)


def bits(shared: Plan, dtype: torch.dtype) -> Tensor:
    """Integers over the whole range of `dtype`."""
    _limits(dtype)
    if dtype.itemsize == 8:
        return wide_words(shared).view(dtype)
    return _narrowed(words(shared), dtype)


def between(shared: Plan, low: int | None, high: int | None, dtype: torch.dtype) -> Tensor:
    """Integers in [low, high), by the remainder of a random word."""
    least, limit = _limits(dtype)
    start, stop = least if low is None else low, limit if high is None else high
    if stop <= start:
        raise ValueError(
            f"`high` is {stop} and `low` is {start}. There is no integer in [low, high). "
            "Give a `high` above `low`."
        )
    if start < least or stop > limit:
        raise ValueError(
            f"[low, high) is [{start}, {stop}), outside the range [{least}, {limit}) of {dtype}. "
            "The integers could not be stored. Give a wider `dtype`."
        )
    width = stop - start
    if (start, stop) == (least, limit):
        return bits(shared, dtype)
    if dtype.itemsize == 8:
        return _wrapped_sum(remainder(wide_words(shared), width), start).view(dtype)
    if width >= 1 << 28 and width & width - 1:
        raise ValueError(
            f"`high - low` is {width} and `dtype` is {dtype}. A remainder of 32 random bits would "
            "make some integers 6 % likelier than others. Draw with `dtype=torch.int64`."
        )
    return _narrowed(words(shared) % width + start, dtype)


def remainder(word: Tensor, width: int) -> Tensor:
    """The remainder of an unsigned 64-bit word, given as int64, by `width` in [1, 2**64)."""
    if width <= 1 << 31:
        high = (word >> 32 & MASK32) % width
        return (high * ((1 << 32) % width) + (word & MASK32)) % width
    if width >= 1 << 63:
        # The word holds the width once at most. Signs flipped, the order is the unsigned one.
        below = (word ^ _SIGN) < (signed(width) ^ _SIGN)
        return torch.where(below, word, _wrapped_sum(word, -width))
    half = (word >> 1 & -_SIGN - 1) % width
    return _reduced(_reduced(half, half, width), word & 1, width)


def permutation(key: Key, n: int) -> Tensor:
    """The order of `n` random words."""
    return torch.argsort(wide_words(plan(key, (n,))), stable=True)


def _reduced(first: Tensor, second: Tensor, width: int) -> Tensor:
    """`(first + second) % width` of numbers below `width`, with no sum that overflows."""
    over = first - (width - second)
    return torch.where(over >= 0, over, over + width)


def _wrapped_sum(word: Tensor, number: int) -> Tensor:
    """`word + number` modulo 2**64, by halves: a signed sum could overflow."""
    low = (word & MASK32) + (number & MASK32)
    high = (word >> 32) + (number >> 32 & MASK32) + (low >> 32)
    return ((high & MASK32 ^ 0x80000000) - 0x80000000 << 32) | (low & MASK32)


def _narrowed(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The low bits of an int64 as `dtype`."""
    return value if dtype is torch.int64 else value.to(dtype)


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    found = _RANGES.get(dtype)
    if found is None:
        raise ValueError(
            f"`dtype` is {describe(dtype)}. Random integers need an integer dtype. Use "
            "`random.uniform` for numbers in between."
        )
    return found
