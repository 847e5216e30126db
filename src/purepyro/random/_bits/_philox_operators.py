"""Blocks of Philox as single nodes of a graph.

Traced operation by operation, a draw is some 150 nodes. While the compiler traces, it is one: so it
can be joined with others, or drawn ahead of a loop, before :func:`expanded` spells it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.library import Library, register_fake, register_vmap

from . import _floats, _philox

Kind = Literal["words", "wide_words", "keys", "normals", "wide_normals", "normal", "wide_normal"]
"""What to make of a block.

4 words, or 2 of 64 bits, or those of a key; 4 normal numbers, or 2 of 64 bits; the first of these.
"""

FIRST: Mapping[Kind, Kind] = {"normals": "normal", "wide_normals": "wide_normal"}
"""What to make of a block of which only the first number is used."""

_AS_NODES: ContextVar[bool] = ContextVar("purepyro_as_nodes", default=False)


@contextmanager
def as_nodes() -> Iterator[None]:
    """A stretch of code in which draws are traced as single nodes."""
    token = _AS_NODES.set(True)
    try:
        yield
    finally:
        _AS_NODES.reset(token)


def blocks(key: Tensor, count: int, kind: Kind) -> Tensor:
    """What to make of blocks 0 to `count` - 1 of each key, (*batch, count, lanes)."""
    return lanes(key, torch.arange(count, device=key.device), kind)


def lanes(key: Tensor, index: Tensor | int, kind: Kind) -> Tensor:
    """What to make of each key's blocks at `index`.

    Args:
        key: Keys, int64 (*batch, 2).
        index: 64-bit words, int64 that broadcasts with (*batch, 1), or one for all.
        kind: What to make of a block.

    Returns:
        (*batch, count, lanes), where `index` has `count` in its last dimension, or 1.
    """
    if not _AS_NODES.get():
        return expanded(key, index, kind)
    if isinstance(index, int):
        signed = (index + (1 << 63)) % (1 << 64) - (1 << 63)
        index = torch.full((1,), signed, dtype=torch.int64, device=key.device)
    found: Tensor = OPERATOR(key, index, kind)
    return found


def expanded(key: Tensor, index: Tensor | int, kind: Kind) -> Tensor:
    """What the node computes, in operations of torch."""
    return torch.stack(_of_words(key, index, kind), dim=-1)


def expanded_in_planes(key: Tensor, index: Tensor | int, kind: Kind) -> Tensor:
    """The same for a compiler: the first words of all keys lie together, and so do the second.

    That is how draws read them, a vector of the processor at a time.
    """
    if kind != "keys":
        return expanded(key, index, kind)
    return torch.stack(_of_words(key, index, kind)).movedim(0, -1)


def _of_words(key: Tensor, index: Tensor | int, kind: Kind) -> list[Tensor]:
    seed, offset = key.unsqueeze(-2).unbind(-1)
    # Four tensors up to here: one stacked tensor with its flips makes Inductor materialise a buffer
    # a round.
    return _made(_philox.words(seed, offset, index), kind)


def _made(words: _philox.Words, kind: Kind) -> list[Tensor]:
    w0, w1, w2, w3 = words
    if kind == "keys":
        return [_philox.join(w0, w1), _philox.join(w2, w3)]
    if kind == "wide_words":  # the first word of a pair is the high half
        return [_philox.join(w1, w0), _philox.join(w3, w2)]
    if kind == "normals":
        one, two, three, four = map(_floats.single, words)
        return [*_floats.box_muller(one, two), *_floats.box_muller(three, four)]
    if kind == "wide_normals":
        return [*_floats.box_muller(_floats.double(w0, w1), _floats.double(w2, w3))]
    for many, first in FIRST.items():
        if kind == first:
            return _made(words, many)[:1]
    return [w0, w1, w2, w3]


_LANES: Mapping[Kind, tuple[torch.dtype, int]] = {
    "words": (torch.int64, 4),
    "wide_words": (torch.int64, 2),
    "keys": (torch.int64, 2),
    "normals": (torch.float32, 4),
    "normal": (torch.float32, 1),
    "wide_normals": (torch.float64, 2),
    "wide_normal": (torch.float64, 1),
}


def _shapes(key: Tensor, index: Tensor, kind: Kind) -> Tensor:
    """A tensor like the node's result, without numbers."""
    shape = np.broadcast_shapes((*key.shape[:-1], 1), index.shape)
    dtype, count = _LANES[kind]
    return key.new_empty((*shape, count), dtype=dtype)


def _under_vmap(
    info: object, in_dims: tuple[int | None, ...], key: Tensor, index: Tensor, kind: Kind
) -> tuple[Tensor, int]:
    """The rule of vmap: the batch goes first, ranks are levelled behind it."""
    of_key, of_index = in_dims[:2]
    rank = max(key.dim() - (of_key is not None), index.dim() - (of_index is not None))
    found: Tensor = OPERATOR(_batched(key, of_key, rank), _batched(index, of_index, rank), kind)
    return found, 0


def _batched(tensor: Tensor, dim: int | None, rank: int) -> Tensor:
    if dim is None:
        return tensor
    first = tensor.movedim(dim, 0)
    return first.reshape(first.shape[0], *[1] * (rank + 1 - first.dim()), *first.shape[1:])


_make: Any = Library  # which torch leaves untyped
_LIBRARY = _make("purepyro", "DEF")
_LIBRARY.define("philox(Tensor key, Tensor index, str kind) -> Tensor")
_LIBRARY.impl("philox", expanded, "CompositeExplicitAutograd")
register_fake("purepyro::philox", _shapes, lib=_LIBRARY)
register_vmap("purepyro::philox", _under_vmap, lib=_LIBRARY)

OPERATOR: Any = torch.ops.purepyro.philox.default
