"""Blocks of Philox as single nodes of a graph.

Traced operation by operation, a draw is some 150 nodes. While the compiler traces, it is one: so it
can be joined with others, or drawn ahead of a loop, before :func:`expanded` spells it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.library import Library, register_fake, register_vmap

from . import _numbers, _philox

Kind = Literal["words", "keys", "normals", "wide_normals"]
"""What to make of a block: 4 words, the 2 words of a key, 4 float32 or 2 float64 normal numbers."""

_AS_NODES: ContextVar[bool] = ContextVar("purepyro_as_nodes", default=False)


@contextmanager
def as_nodes() -> Iterator[None]:
    """A stretch of code in which draws are traced as single nodes."""
    token = _AS_NODES.set(True)
    try:
        yield
    finally:
        _AS_NODES.reset(token)


def blocks(key: Tensor, count: int, kind: Kind) -> list[Tensor]:
    """The lanes of blocks 0 to `count` - 1 of each key, (*batch, count) each.

    Four tensors, not one: a stacked tensor with its flips makes Inductor materialise a buffer a
    round.
    """
    return lanes(key, torch.arange(count, device=key.device), kind)


def lanes(key: Tensor, index: Tensor | int, kind: Kind) -> list[Tensor]:
    """The lanes of each key's blocks at `index`.

    Args:
        key: Keys, int64 (*batch, 2).
        index: 64-bit words, int64 that broadcasts with (*batch, 1), or one for all.
        kind: What to make of the words.
    """
    seed, offset = key.unsqueeze(-2).unbind(-1)
    if not _AS_NODES.get():
        return _made(_philox.words(seed, offset, index), kind)
    if isinstance(index, int):
        signed = (index + (1 << 63)) % (1 << 64) - (1 << 63)
        index = torch.full((), signed, dtype=torch.int64, device=key.device)
    found: list[Tensor] = OPERATOR(seed, offset, index, kind)
    return found


def expanded(seed: Tensor, offset: Tensor, index: Tensor, kind: Kind) -> list[Tensor]:
    """What the node computes, in operations of torch."""
    return _made(_philox.words(seed, offset, index), kind)


def _made(words: _philox.Words, kind: Kind) -> list[Tensor]:
    w0, w1, w2, w3 = words
    if kind == "keys":
        return [_philox.join(w0, w1), _philox.join(w2, w3)]
    if kind == "normals":
        one, two, three, four = map(_numbers.single, words)
        return [*_numbers.box_muller(one, two), *_numbers.box_muller(three, four)]
    if kind == "wide_normals":
        return [*_numbers.box_muller(_numbers.double(w0, w1), _numbers.double(w2, w3))]
    return [w0, w1, w2, w3]


def _shapes(seed: Tensor, offset: Tensor, index: Tensor, kind: Kind) -> list[Tensor]:
    """Tensors like the node's results, without numbers."""
    shape = np.broadcast_shapes(seed.shape, offset.shape, index.shape)
    count = 4 if kind in ("words", "normals") else 2
    dtypes = {"normals": torch.float32, "wide_normals": torch.float64}
    return [seed.new_empty(shape, dtype=dtypes.get(kind, torch.int64)) for _ in range(count)]


def _under_vmap(
    info: object, in_dims: tuple[int | None, ...], *args: Any
) -> tuple[list[Tensor], list[int]]:
    """The rule of vmap: the batch goes first, ranks are levelled behind it."""
    tensors = [
        tensor if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(args[:3], in_dims, strict=False)
    ]
    ranks = [t.dim() - (d is not None) for t, d in zip(tensors, in_dims, strict=False)]
    level = max(ranks)
    seed, offset, index = (
        t if d is None else t.reshape(t.shape[0], *[1] * (level - rank), *t.shape[1:])
        for t, d, rank in zip(tensors, in_dims, ranks, strict=False)
    )
    found: list[Tensor] = OPERATOR(seed, offset, index, args[3])
    return found, [0] * len(found)


_make: Any = Library  # which torch leaves untyped
_LIBRARY = _make("purepyro", "DEF")
_LIBRARY.define("philox(Tensor seed, Tensor offset, Tensor index, str kind) -> Tensor[]")
_LIBRARY.impl("philox", expanded, "CompositeExplicitAutograd")
register_fake("purepyro::philox", _shapes, lib=_LIBRARY)
register_vmap("purepyro::philox", _under_vmap, lib=_LIBRARY)

OPERATOR: Any = torch.ops.purepyro.philox.default
