"""Keys from keys: `split`, `fold_in` and the keys of names."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from .._compat._function_modes import quiet
from .._compat._functorch import outside_transforms, plain, readable
from .._core._whole_numbers import whole
from .._errors import DtypeError, ShapeError, SupportError, describe
from ._bits import _host, _philox_operators
from ._bits._constants import MASK64
from ._key import Key, as_key, check_key
from ._reuse import consume


@quiet
def split(key: Key, num: int = 2) -> Key:
    """`num` new keys from one.

    `split(key, n)[i]` is `fold_in(key, i)`, the same words as `torch.func._random.split` gives.

    Args:
        key: A key, or a stack of keys (*batch, 2).
        num: How many keys, at least 1.

    Returns:
        Keys, (num, *batch, 2).

    Raises:
        KeyTypeError: If `key` is no key.
        ShapeError: If `num` is not a positive integer.

    Example:
        >>> from purepyro import random
        >>> first, second = random.split(random.key(0))
        >>> random.split(random.key(0), 5).shape
        torch.Size([5, 2])
    """
    checked = check_key(key)
    count = whole(num, 1)
    if count is None:
        raise ShapeError(
            f"`num` is {describe(num)}. A key splits into one new key or more. Write "
            "`random.split(key, 2)`."
        )
    consume(checked, "split")
    pairs = readable(checked)
    if pairs is None:
        index = torch.arange(count, device=checked.device)
        return as_key(_philox_operators.lanes(checked, index, "keys").movedim(-2, 0))
    return _host_keys(_host.blocks(pairs, count), (count, *checked.shape))


@quiet
def fold_in(key: Key, data: int | Tensor) -> Key:
    """A new key from a key and a number.

    The block of the key's stream at `offset + data`: its words 0 and 1 are the new seed, 2 and 3
    the new offset. Different numbers give independent keys. Folding in does not use the key up.

    Args:
        key: A key, or a stack of keys (*batch, 2).
        data: An integer of 64 bits, signed or unsigned, or an integer tensor that broadcasts with
            *batch.

    Returns:
        Keys, (*batch, 2).

    Raises:
        KeyTypeError: If `key` is no key.
        DtypeError: If `data` is no integer.
        SupportError: If it has more than 64 bits.

    Example:
        >>> from purepyro import random
        >>> key = random.key(0)
        >>> torch.equal(random.fold_in(key, 1), random.split(key, 3)[1])
        True
    """
    checked = check_key(key)
    if isinstance(data, Tensor):
        return _fold_in_tensor(checked, data)
    number = whole(data)
    if number is None:
        raise DtypeError(_NO_INTEGER.format(describe(data)))
    if not -(1 << 63) <= number <= MASK64:
        raise SupportError(
            f"`data` is {number}, which has more than 64 bits, so it would give the key of another "
            "number. Fold it in part by part, `fold_in(fold_in(key, n >> 64), n % 2**64)`, or hash "
            "a name, `random.name_key(key, str(n))`."
        )
    return fold_in_integer(checked, number)


@quiet
def name_key(key: Key, name: str) -> Key:
    """The key of a name: `fold_in(key, h)` with `h` a hash of `name` that never changes.

    A draw under `name_key(key, name)` depends on the two alone, whatever other names there are.

    Args:
        key: A key, or a stack of keys (*batch, 2).
        name: Any text.

    Returns:
        Keys, (*batch, 2).

    Example:
        >>> from purepyro import random
        >>> key = random.key(0)
        >>> torch.equal(random.name_key(key, "weight"), random.name_key(key, "bias"))
        False
    """
    return fold_in_integer(check_key(key), name_hash(name))


@lru_cache(maxsize=4096)
def name_hash(name: str) -> int:
    """A hash of `name` in [0, 2**63), the same in every process and version."""
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


_NO_INTEGER = (
    "`data` is {}. What is folded into a key is an integer, as its place in the key's stream. "
    "Count the uses, `random.fold_in(key, i)`, or hash a name, `random.name_key(key, name)`."
)


def fold_in_integer(key: Key, data: int) -> Key:
    """`fold_in` of an integer, without the checks."""
    pairs = readable(key)
    if pairs is None:
        return as_key(_philox_operators.lanes(key, data, "keys").squeeze(-2))
    if key.dim() == 1:
        seed, offset = pairs[0].tolist()
        derived = np.array(_host.derived(seed, offset + data), dtype=np.int64)
        with outside_transforms():
            return as_key(torch.from_numpy(derived))
    counters = pairs[:, 1, None] + np.uint64(data & MASK64)
    return _host_keys(_host.expand(pairs[:, 0], counters), tuple(key.shape))


def _fold_in_tensor(key: Key, data: Tensor) -> Key:
    if data.dtype.is_floating_point or data.dtype.is_complex or data.dtype is torch.bool:
        raise DtypeError(_NO_INTEGER.format(describe(data)))
    number = plain(data) if data.dim() == 0 else None
    if number is not None:
        with outside_transforms():
            integer = int(number)
        return fold_in_integer(key, integer)
    words = data.view(torch.int64) if data.dtype is torch.uint64 else data.to(torch.int64)
    return as_key(_philox_operators.lanes(key, words.unsqueeze(-1), "keys").squeeze(-2))


def _host_keys(blocks: tuple[_host.Words, _host.Words], shape: tuple[int, ...]) -> Key:
    """Keys of a shape, blocks first, from the words of their blocks."""
    even, odd = blocks
    found = (even.astype(np.uint64) | odd.astype(np.uint64) << np.uint64(32)).view(np.int64)
    with outside_transforms():
        return as_key(torch.from_numpy(np.ascontiguousarray(found.T)).reshape(shape))
