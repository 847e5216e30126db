"""Philox4x32-10 on the host: Python integers for a few blocks, NumPy for many.

Eager torch spends some 2 us on each of the 130 operations of a draw. A key whose words can be read
is therefore expanded here, in a third of the time, to the same bits as `_philox` computes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._constants import MASK32, MASK64, MULTIPLIERS, ROUNDS, WEYL
from .._key import signed

Words = NDArray[np.uint32]
Wide = NDArray[np.uint64]

_SMALL = 1 << 16
_MULTIPLIERS = np.array(MULTIPLIERS, dtype=np.uint64)[:, None, None]
_WEYL = (np.arange(ROUNDS, dtype=np.uint64)[:, None] * np.array(WEYL, dtype=np.uint64)).astype(
    np.uint32
)[:, :, None, None]


def block(seed: int, counter: int) -> tuple[int, int, int, int]:
    """The four 32-bit words of one block; `seed` and `counter` are taken modulo 2**64."""
    first, second = MULTIPLIERS
    step0, step1 = WEYL
    key0, key1 = seed & MASK32, seed >> 32 & MASK32
    c0, c1, c2, c3 = counter & MASK32, counter >> 32 & MASK32, 0, 0
    for _ in range(ROUNDS):
        low, high = first * c0, second * c2
        c0, c1 = high >> 32 ^ c1 ^ key0, high & MASK32
        c2, c3 = low >> 32 ^ c3 ^ key1, low & MASK32
        key0, key1 = key0 + step0 & MASK32, key1 + step1 & MASK32
    return c0, c1, c2, c3


def pair(key: tuple[int, int]) -> Wide:
    """The words of one key as those of a stack of keys."""
    seed, offset = key
    return np.array([[seed & MASK64, offset & MASK64]], dtype=np.uint64)


def derived(seed: int, counter: int) -> tuple[int, int]:
    """The two words of a derived key, as the signed integers that an int64 tensor holds."""
    c0, c1, c2, c3 = block(seed, counter & MASK64)
    return signed(c0 | c1 << 32), signed(c2 | c3 << 32)


def blocks(keys: Wide, count: int) -> tuple[Words, Words]:
    """The words of blocks 0 to `count` - 1 of each key.

    Args:
        keys: Seeds and offsets, (keys, 2).
        count: Blocks of each key.

    Returns:
        The even words (0, 2) and the odd words (1, 3) of all blocks, both (2, keys, count).
    """
    number = keys.shape[0]
    if number == 1 and count <= 3:
        return _few_blocks(int(keys[0, 0]), int(keys[0, 1]), count)
    counters = np.add(keys[:, 1, None], np.arange(count, dtype=np.uint64), dtype=np.uint64)
    return expand(keys[:, 0], counters)


def expand(seeds: Wide, counters: Wide) -> tuple[Words, Words]:
    """The words of the blocks at `counters` (keys, count) under `seeds` (keys,), as `blocks`."""
    shape = (2, *counters.shape)
    # Little-endian words throughout: the low half comes first. Each 32-bit word sits in the low
    # half of a 64-bit one, so that it can be multiplied as it stands; the products' halves are read
    # in place, their two rows in reverse, which is the crossing over of the Philox round.
    state = np.zeros(shape, dtype=np.uint64)
    even = state.view(np.uint32)[..., 0::2]
    halves = np.ascontiguousarray(counters).view(np.uint32)
    even[0] = halves[:, 0::2]
    odd = np.zeros(shape, dtype=np.uint32)
    odd[0] = halves[:, 1::2]
    multipliers = _spread(_MULTIPLIERS, shape)
    schedule = _schedule(seeds, shape)
    products = np.empty((2, *shape), dtype=np.uint64)
    crossed = products.view(np.uint32)[:, ::-1]
    turns = [(products[i], crossed[i, ..., 0::2], crossed[i, ..., 1::2]) for i in (0, 1)]
    for turn in range(ROUNDS):
        product, low, high = turns[turn & 1]
        np.multiply(state, multipliers, product)
        np.bitwise_xor(high, odd, even)
        np.bitwise_xor(state, schedule[turn], state)
        odd = low
    return even, odd


def _schedule(seeds: Wide, shape: tuple[int, ...]) -> Wide:
    """The round keys, (rounds, *shape)."""
    halves = np.ascontiguousarray(seeds).view(np.uint32).reshape(-1, 2).T
    keys = (_WEYL + halves[:, :, None]).astype(np.uint64)
    return _spread(keys, (ROUNDS, *shape))


def _spread(values: Wide, shape: tuple[int, ...]) -> Wide:
    """`values` broadcast to `shape`; written out where small, which halves a ufunc's cost."""
    spread = np.broadcast_to(values, shape)
    return np.ascontiguousarray(spread) if spread.size <= _SMALL else spread


def _few_blocks(seed: int, offset: int, count: int) -> tuple[Words, Words]:
    found = np.array([block(seed, offset + i & MASK64) for i in range(count)], dtype=np.uint32)
    lanes = found.reshape(1, count, 4)
    return lanes[:, :, 0::2].transpose(2, 0, 1), lanes[:, :, 1::2].transpose(2, 0, 1)
