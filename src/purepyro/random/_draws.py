"""The public draws: bits, uniforms, normals, integers, permutations."""

from __future__ import annotations

import torch
from torch import Tensor

from .._compat._function_modes import quiet
from .._core._whole_numbers import as_int_or_none, whole
from .._errors import ShapeError, describe
from ._bits import _bounded, _words
from ._bits._shape import Shape, flat, plan
from ._key import Key, check_key
from ._reuse import consume


@quiet
def bits(key: Key, *shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
    """Random bits: integers over the whole range of a dtype, all equally likely.

    Args:
        key: A key, or a stack of keys (*batch, 2) whose batch is the leading dimensions of `shape`:
            each key then draws its own slice from its own stream.
        *shape: The shape, as integers or as one tuple.
        dtype: An integer dtype, int32 by default. 64-bit dtypes take two words a number, all others
            the low bits of one 32-bit word.

    Returns:
        A tensor of that shape on the device of the key.

    Raises:
        KeyTypeError: If `key` is no key.
        ValueError: If the keys do not fit the shape, or `dtype` is no integer dtype.

    Example:
        >>> from purepyro import random
        >>> [hex(word) for word in random.bits(random.key(0), 4, dtype=torch.uint32).tolist()]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    checked = check_key(key)
    consume(checked, "bits")
    return _bounded.bits(plan(checked, flat(shape)), dtype or torch.int32)


@quiet
def uniform(
    key: Key,
    *shape: Shape,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform numbers in [low, high).

    Args:
        key: A key, or a stack of keys, as for `bits`.
        *shape: The shape, as integers or as one tuple.
        low: Lower bound, a number or a tensor that broadcasts to `shape`.
        high: Upper bound, likewise. Gradients flow to both.
        dtype: A floating-point dtype, float32 by default.

    Returns:
        A tensor of that shape on the device of the key.

    Raises:
        KeyTypeError: If `key` is no key.
        ValueError: If the keys do not fit the shape, or `dtype` is no floating-point dtype.

    Example:
        >>> from purepyro import random
        >>> random.uniform(random.key(0), 2, 2, low=-1.0)
        tensor([[-0.6882, -0.1737],
                [-0.3151, -0.9933]])
    """
    checked = check_key(key)
    consume(checked, "uniform")
    found = _words.uniforms(plan(checked, flat(shape)), _floating(dtype))
    if isinstance(low, float) and low == 0.0 and isinstance(high, float) and high == 1.0:
        return found
    return found * (high - low) + low


@quiet
def normal(
    key: Key,
    *shape: Shape,
    mean: float | Tensor = 0.0,
    std: float | Tensor = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Normal numbers, `mean + std * z`.

    `normal(key, 3)` is a prefix of `normal(key, 8)`.

    Args:
        key: A key, or a stack of keys, as for `bits`.
        *shape: The shape, as integers or as one tuple.
        mean: Mean, a number or a tensor that broadcasts to `shape`.
        std: Standard deviation, likewise. Gradients flow to both.
        dtype: A floating-point dtype, float32 by default.

    Returns:
        A tensor of that shape on the device of the key.

    Raises:
        KeyTypeError: If `key` is no key.
        ValueError: If the keys do not fit the shape, or `dtype` is no floating-point dtype.

    Example:
        >>> from purepyro import random
        >>> random.normal(random.key(0), 3)
        tensor([ 0.9911, -0.9247, -0.6176])
        >>> keys = random.split(random.key(0), 4)
        >>> random.normal(keys, 4, 3).shape
        torch.Size([4, 3])
    """
    checked = check_key(key)
    consume(checked, "normal")
    found = _words.normals(plan(checked, flat(shape)), _floating(dtype))
    if isinstance(mean, float) and mean == 0.0 and isinstance(std, float) and std == 1.0:
        return found
    return found * std + mean


@quiet
def randint(
    key: Key,
    *shape: Shape,
    low: int | None = 0,
    high: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Uniform integers in [low, high).

    Args:
        key: A key, or a stack of keys, as for `bits`.
        *shape: The shape, as integers or as one tuple.
        low: Lower bound; None is the least value of `dtype`.
        high: Upper bound, itself excluded; None is one more than the largest value of `dtype`.
        dtype: An integer dtype, int32 by default. A random word of 64 bits (64-bit dtypes) or 32
            bits (all others) is reduced by the remainder, so the least likely integer is less
            likely than others by (high - low) / 2**64 or / 2**32 of itself.

    Returns:
        A tensor of that shape on the device of the key.

    Raises:
        KeyTypeError: If `key` is no key.
        ValueError: If the range is empty, outside `dtype`, or 2**28 and more, not a power of two,
            in a dtype of 32 bits or less (its bias would exceed 6 %).

    Example:
        >>> from purepyro import random
        >>> random.randint(random.key(0), 5, high=10)
        tensor([1, 3, 8, 0, 4], dtype=torch.int32)
    """
    checked = check_key(key)
    consume(checked, "randint")
    shared = plan(checked, flat(shape))
    start, stop = as_int_or_none(low), as_int_or_none(high)
    return _bounded.between(shared, start, stop, dtype or torch.int32)


@quiet
def permutation(key: Key, n: int) -> Tensor:
    """A random order of the integers 0 to `n` - 1.

    The order of `n` random 64-bit words; two of them are equal with probability n**2 / 2**65.

    Args:
        key: A single key.
        n: How many integers.

    Returns:
        int64 (n,).

    Raises:
        KeyTypeError: If `key` is no key, or a stack of keys.
        ShapeError: If `n` is no integer, or negative.

    Example:
        >>> from purepyro import random
        >>> random.permutation(random.key(0), 5).sort().values
        tensor([0, 1, 2, 3, 4])
    """
    checked = check_key(key, single=True)
    consume(checked, "permutation")
    count = whole(n, 0)
    if count is None:
        raise ShapeError(
            f"`n` is {describe(n)}. There are no orders of fewer than no integers. Write n >= 0."
        )
    return _bounded.permutation(checked, count)


def _floating(dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise ValueError(
            f"`dtype` is {describe(dtype)}. Uniform and normal numbers are floating-point, of 16 "
            "bits or more. Use `random.randint` or `random.bits` for integers."
        )
    return dtype
