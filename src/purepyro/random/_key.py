"""What a key is, and the check that a value is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NewType, cast

import torch
from torch import Tensor

from .._core._whole_numbers import whole
from .._errors import KeyTypeError, SupportError, describe
from ._bits._constants import MASK64

if TYPE_CHECKING:
    # As NewType, and besides the rows of a stack are keys: `first, second = split(key)`.
    class Key(Tensor):
        def __iter__(self) -> Iterator[Key]: ...
        def __getitem__(self, indices: object, /) -> Key: ...
else:
    Key = NewType("Key", Tensor)
"""A random key, or a stack of keys, for type checkers: int64, (2,) or (*batch, 2).

The two 64-bit words (seed, offset) of a Philox stream, as `torch.func._random` has them. A uint64
tensor is taken as well; int64 is what purepyro returns, as torch can compute with it everywhere.
"""

_WORDS = (torch.int64, torch.uint64)


def key(seed: int, *, device: torch.device | str | None = None) -> Key:
    """A new random key from a seed.

    Args:
        seed: An integer in [0, 2**64).
        device: Where the key lives, and with it what is drawn from it; the CPU by default.

    Returns:
        A key, int64 (2,): the words (seed, 0), as `torch.func._random.key` gives them.

    Raises:
        KeyTypeError: If `seed` is not an integer.
        SupportError: If it is negative, or has more than 64 bits.

    Example:
        >>> from purepyro import random
        >>> random.key(0)
        tensor([0, 0])
        >>> random.uniform(random.key(0), 3)
        tensor([0.1559, 0.4132, 0.3425])
    """
    number = whole(seed)
    if number is None:
        raise KeyTypeError(
            f"`seed` is {describe(seed)}, of type {type(seed).__name__}. A key starts from an "
            "integer, so that it can be written down and used again. Write `random.key(0)`."
        )
    if not 0 <= number <= MASK64:
        raise SupportError(
            f"`seed` is {number}, and a seed is in [0, 2**64), since a key has 64 bits for it. By "
            "its last 64 bits alone it would be the same as another seed. If that will do, write "
            "`random.key(seed % 2**64)`."
        )
    return as_key(torch.tensor([signed(number), 0], dtype=torch.int64, device=device or "cpu"))


def check_key(key: object, where: str = "key", *, single: bool = False) -> Key:
    """`key` as an int64 key, after a check of its type, dtype and shape (never of its values).

    Args:
        key: What stands where a key is wanted.
        where: The name of that place, for the message.
        single: Whether only one key will do, not a stack of them.

    Raises:
        KeyTypeError: If it is no key.
    """
    if not isinstance(key, Tensor):
        raise KeyTypeError(_not_a_tensor(key, where))
    if key.dtype not in _WORDS:
        raise KeyTypeError(
            f"`{where}` is {describe(key)}. A key holds two 64-bit words, int64 or uint64, so this "
            "tensor is something else. Make a key with `random.key(0)`."
        )
    if key.dim() == 0 or key.shape[-1] != 2:
        raise KeyTypeError(
            f"`{where}` is {describe(key)}. A key has shape (2,) and a stack of keys (*batch, 2), "
            "so this tensor is something else. Make a key with `random.key(0)`."
        )
    if single and key.dim() != 1:
        raise KeyTypeError(
            f"`{where}` is {describe(key)}, a stack of keys. One key of shape (2,) is wanted here, "
            "since one run draws from one key. Use `torch.vmap` over it for one run a key."
        )
    return as_key(key if key.dtype is torch.int64 else key.view(torch.int64))


def as_key(words: Tensor) -> Key:
    """A tensor that is known to be a key: torch.compile cannot call a NewType."""
    return cast(Key, words)


def signed(word: int) -> int:
    """The int64 that has the bits of a 64-bit word, which is taken modulo 2**64."""
    word &= MASK64
    return word - (1 << 64) if word >> 63 else word


def _not_a_tensor(key: object, where: str) -> str:
    if whole(key) is not None:
        return (
            f"`{where}` is the integer {key}. An integer is a seed, and a seed is not yet a key. "
            f"Write `random.key({key})`."
        )
    if isinstance(key, torch.Generator):
        return (
            f"`{where}` is a torch.Generator. Its state changes with every draw, so a run would "
            "not be a function of its arguments. Write `random.key(0)`."
        )
    return (
        f"`{where}` is {describe(key)}, of type {type(key).__name__}. A key is an int64 tensor of "
        "shape (2,). Make one with `random.key(0)`."
    )
