"""`sample`: a draw of a distribution from a key."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import TypeVar, cast

from torch import Tensor

from .._compat._function_modes import quiet
from .._compat._untyped import own_draw, part, reparameterised
from .._errors import UnsupportedDistributionError
from ._bits._shape import flat
from ._distributions._composed import of_base
from ._distributions._entries import COMPOSED, KEYLESS, LEAVES, UNSUPPORTED, Composed, Leaf
from ._key import Key, check_key
from ._mode import current_source, draw
from ._reuse import consume, unchecked
from ._source import KeySource

Shape = tuple[int, ...]
T = TypeVar("T")


def sample(key: Key, distribution: object, sample_shape: Sequence[int] = ()) -> Tensor:
    """One draw of a distribution, as a function of the key.

    What `distribution(sample_shape)` of Pyro does: reparameterised where the distribution is.
    Works in eager mode, under `torch.func.vmap` (over keys, parameters or both), `torch.func.grad`
    and while a graph is traced. A draw under vmap over keys has the bits of the same draw alone.

    Args:
        key: A single key.
        distribution: A distribution of `pyro.distributions` or `torch.distributions`, or a subclass
            whose own code draws by torch's random calls.
        sample_shape: The shape of independent draws, in front of the distribution's own shape.

    Returns:
        `sample_shape + distribution.shape()`.

    Raises:
        KeyTypeError: If `key` is no key, or a stack of keys.
        ShapeError: If `sample_shape` is no shape.
        UnsupportedDistributionError: If the distribution cannot be drawn from a key.

    Example:
        >>> import torch
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> random.sample(random.key(0), dist.Normal(0.0, 1.0), (3,))
        tensor([ 0.9911, -0.9247, -0.6176])
        >>> keys = random.split(random.key(0), 4)
        >>> beta = dist.Beta(torch.ones(2), torch.ones(2))
        >>> torch.vmap(lambda key: random.sample(key, beta))(keys).shape
        torch.Size([4, 2])
    """
    return draw_distribution(_consumed(key), distribution, flat((sample_shape,)))


@quiet
def _consumed(key: Key) -> Key:
    checked = check_key(key, single=True)
    consume(checked, "sample")
    return checked


def draw_distribution(key: Key, distribution: object, shape: Shape = ()) -> Tensor:
    """`sample` without the checks of the key."""
    while _composed_of(_kind(distribution)) is of_base:  # a wrapper: no draw of its own
        distribution = part(distribution, "base_dist")
    if _kind(distribution) in KEYLESS:
        return own_draw(distribution, shape, part_of=False)
    leaf = leaf_of(_kind(distribution))
    if leaf is not None:
        return _leaf_draw(leaf, KeySource(key), distribution, shape)
    with unchecked():
        return draw(key, lambda: _inside(distribution, shape, part_of=False))


def _inside(distribution: object, shape: Shape, *, part_of: bool) -> Tensor:
    """The draw of a distribution inside a keyed block."""
    composed = _composed_of(_kind(distribution))
    if composed is None:
        return own_draw(distribution, shape, part_of=part_of)
    value = composed(_part, current_source(), distribution, shape)
    return value if part_of or reparameterised(distribution) else value.detach()


def _part(source: KeySource, distribution: object, shape: Shape) -> Tensor:
    """The draw of a part of a distribution."""
    leaf = leaf_of(_kind(distribution))
    if leaf is not None:
        return _leaf_draw(leaf, source, distribution, shape)
    return _inside(distribution, shape, part_of=True)


@quiet
def _leaf_draw(leaf: Leaf, source: KeySource, distribution: object, shape: Shape) -> Tensor:
    value = leaf(source, distribution, shape)
    return value if reparameterised(distribution) else value.detach()


@cache
def leaf_of(kind: Hashable) -> Leaf | None:
    """The keyed version of a distribution that is made of numbers only."""
    reason = _entry(UNSUPPORTED, kind)
    if reason is not None:
        raise UnsupportedDistributionError(
            f"The distribution is a `{cast(type, kind).__name__}`. It cannot be drawn: {reason}. "
            "Give its site a value by `obs=` or by conditioning, or choose another distribution."
        )
    return _entry(LEAVES, kind)


@cache
def _composed_of(kind: Hashable) -> Composed | None:
    return _entry(COMPOSED, kind)


def _entry(table: Mapping[type, T], kind: Hashable) -> T | None:
    """The entry of the nearest base class, unless a class below it draws in a way of its own."""
    for ancestor in cast(type, kind).__mro__:
        if ancestor in table:
            return table[ancestor]
        if _OWN_WAYS & vars(ancestor).keys():
            return None
    return None


def _kind(distribution: object) -> Hashable:
    return cast(Hashable, type(distribution))


_OWN_WAYS = frozenset({"sample", "rsample"})
