"""The debug check that each key is consumed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from .._compat._functorch import readable
from .._errors import KeyReuseError

_Used = dict[tuple[int, int], str]
_USED: ContextVar[_Used | None] = ContextVar("purepyro_used_keys", default=None)


@contextmanager
def forbid_reuse() -> Iterator[None]:
    """A block in which every key may be consumed once only.

    A key that is used for two things gives both the same randomness, which no result shows. Inside
    the block, `split`, the draws, `sample` and the functions that run a model consume their key;
    `fold_in` does not. Keys under vmap or tracing have no values to compare and pass.

    Raises:
        KeyReuseError: At the second consumption, naming the first.

    Example:
        >>> from purepyro import random
        >>> key = random.key(0)
        >>> with random.forbid_reuse():
        ...     x = random.normal(key, 3)
        ...     y = random.uniform(key, 3)
        Traceback (most recent call last):
            ...
        purepyro._errors.KeyReuseError: ...
    """
    token = _USED.set({})
    try:
        yield
    finally:
        _USED.reset(token)


def consume(key: Tensor, what: str) -> None:
    """Note that `what` uses up `key`; a no-op outside `forbid_reuse`.

    Raises:
        KeyReuseError: If the key was used up before.
    """
    used = None if torch.compiler.is_compiling() else _USED.get()
    pairs = None if used is None else readable(key)
    if used is None or pairs is None:
        return
    for seed, offset in pairs.tolist():
        first = used.get((seed, offset))
        if first is not None:
            raise KeyReuseError(
                f"`{what}` uses the key [{seed}, {offset}], which `{first}` has used before. Both "
                "would get the same random numbers. Give each its own key: "
                "`first, second = random.split(key)`, or `random.fold_in(key, i)` in a loop."
            )
        used[seed, offset] = what


@contextmanager
def unchecked() -> Iterator[None]:
    """A block inside which nothing counts as consumption: the library's own derived draws."""
    if _USED.get() is None:
        yield
        return
    token = _USED.set(None)
    try:
        yield
    finally:
        _USED.reset(token)
