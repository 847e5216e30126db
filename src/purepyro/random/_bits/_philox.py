"""Philox4x32-10 in torch operations: legal under vmap, grad, make_fx and Inductor.

Everything is int64 with values in [0, 2**32): torch's uint64 has no add and no shift on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._constants import MASK32, MULTIPLIERS, ROUNDS, WEYL

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def words(seed: Tensor, offset: Tensor, index: Tensor | int) -> Words:
    """The four words of blocks.

    Args:
        seed: The first words of keys, int64.
        offset: Their second words.
        index: Which block of each, a 64-bit word as int64; the three broadcast.
    """
    # The 64-bit sum by halves: a signed sum could overflow, which C++ leaves undefined.
    low = (offset & MASK32) + (index & MASK32)
    high = (offset >> 32) + (index >> 32 & MASK32) + (low >> 32)
    return _rounds(low & MASK32, high & MASK32, seed & MASK32, seed >> 32 & MASK32)


def join(low: Tensor, high: Tensor) -> Tensor:
    """The int64 bit patterns of 64-bit words, from their halves."""
    # `high` as a signed 32-bit number, so that the shift cannot overflow.
    signed = (high ^ 0x80000000) - 0x80000000
    return (signed << 32) | low


def _rounds(c0: Tensor, c1: Tensor, key0: Tensor, key1: Tensor) -> Words:
    # Words 2 and 3 of the counter are zero, which leaves half of the first round.
    low, high = _multiply(c0, MULTIPLIERS[0])
    c0, c1, c2, c3 = c1 ^ key0, torch.zeros_like(c0), high ^ key1, low
    for turn in range(1, ROUNDS):
        round0 = key0 + turn * WEYL[0] & MASK32
        round1 = key1 + turn * WEYL[1] & MASK32
        low0, high0 = _multiply(c0, MULTIPLIERS[0])
        low1, high1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ round0, low1, high0 ^ c3 ^ round1, low0
    return c0, c1, c2, c3


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The low and high halves of a 32 x 32 bit product, without overflow of int64.

    Both multipliers exceed 2**31, so that `multiplier - 2**32` is small and negative; the product
    with it has the same low half, and its high half is less by `word`.
    """
    product = word * (multiplier - (1 << 32))
    return product & MASK32, (product >> 32) + word
