"""`keyed`: a block in which torch's random calls draw from a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, Self, TypeAlias, TypeVar

from torch._C import (
    _len_torch_function_stack,
    _pop_torch_function_stack,
    _push_on_torch_function_stack,
)
from torch.overrides import TorchFunctionMode

from .._compat._innermost import INNERMOST
from ._batch_invariant import STEADY
from ._key import Key, check_key
from ._primitives._composites import COMPOSITES, REPLACED, unchecked
from ._primitives._table import KEYED
from ._reuse import consume
from ._source import KeySource

T = TypeVar("T")


Rewrite: TypeAlias = Callable[
    [Callable[..., Any], Sequence[Any], Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]
]


class KeyedRandom(TorchFunctionMode):
    """The mode behind `keyed`.

    Args:
        key: Where the first call draws from.
        steady: Whether results are the same to the last bit under vmap.
        rewrite: Other arguments for each function of torch that is called.
    """

    def __init__(self, key: Key, *, steady: bool = False, rewrite: Rewrite | None = None) -> None:
        super().__init__()
        self.source = KeySource(key)
        self.steady = steady
        self._rewrite = rewrite
        # For each block that is under way: the mode around it, and how many torch had.
        self._outer: list[tuple[TorchFunctionMode | None, int]] = []

    def __enter__(self) -> Self:
        outer = INNERMOST.mode, _len_torch_function_stack()
        try:
            self._outer.append(outer)
            INNERMOST.mode = self
            _push_on_torch_function_stack(self)
        except BaseException:  # an interrupt: there will be no end of the block
            self._leave(outer)
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._leave(self._outer[-1])

    def _leave(self, outer: tuple[TorchFunctionMode | None, int]) -> None:
        while _len_torch_function_stack() > outer[1]:
            _pop_torch_function_stack()
        INNERMOST.mode = outer[0]
        if self._outer and self._outer[-1] is outer:
            self._outer.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        named: Mapping[str, Any] = kwargs or {}
        if self._rewrite is not None:
            args, named = self._rewrite(func, args, named)
        handler = KEYED.get(func)
        if handler is not None:
            _refuse_generator(func, named)
            return handler(self.source, *args, **named)
        if self.steady:
            steady = STEADY.get(func)
            if steady is not None:
                return steady(*args, **named)
        if type(func) is FunctionType:
            return self._python(func, args, named)
        return func(*args, **named)

    def _python(self, func: FunctionType, args: Sequence[Any], named: Mapping[str, Any]) -> object:
        body = REPLACED.get(func)
        if body is None and func in COMPOSITES:
            body = unchecked(func)
        if body is None:
            return func(*args, **named)
        _refuse_generator(func, named)
        with self:
            return body(*args, **named)


def keyed(key: Key) -> KeyedRandom:
    """A block in which every random call of torch draws from `key`.

    The first call draws from the key itself, call j >= 1 from `fold_in(key, 2**62 + j)`. Works with
    code that knows nothing of keys (`torch.nn.init`, dropout, `torch.distributions`), in eager
    mode, under `torch.func.vmap` and `grad` and while a graph is traced. The global generator is
    neither read nor changed.

    Args:
        key: A single key.

    Returns:
        A context manager.

    Raises:
        KeyTypeError: If `key` is no key, or a stack of keys.
        ValueError: Inside, if a call is given a `generator`, whose state is hidden from the key.

    Example:
        >>> import torch
        >>> from purepyro import random
        >>> with random.keyed(random.key(0)):
        ...     x = torch.randn(3)
        >>> torch.equal(x, random.normal(random.key(0), 3))
        True
    """
    checked = check_key(key, single=True)
    consume(checked, "keyed")
    return KeyedRandom(checked)


def draw(key: Key, fn: Callable[[], T]) -> T:
    """What `fn()` returns when its random calls draw from `key`.

    As `keyed` without its overhead: a mode that is on already is pointed at `key` for the time.
    """
    mode = INNERMOST.mode
    if not isinstance(mode, KeyedRandom):
        with KeyedRandom(key, steady=True):
            return fn()
    source, steady = mode.source, mode.steady
    mode.source, mode.steady = KeySource(key), True
    try:
        return fn()
    finally:
        mode.source, mode.steady = source, steady


def current_source() -> KeySource:
    """The keys of the innermost block."""
    mode = INNERMOST.mode
    if not isinstance(mode, KeyedRandom):
        raise RuntimeError("There is no keyed block around this draw. Draw by `random.sample`.")
    return mode.source


def _refuse_generator(func: Callable[..., Any], named: Mapping[str, Any]) -> None:
    if named.get("generator") is not None:
        raise ValueError(
            f"`{func.__name__}` is given a `generator` inside a keyed block. A generator changes "
            "with every draw, so the result would not be a function of the key. Leave `generator` "
            "out: the call then draws from the key."
        )
