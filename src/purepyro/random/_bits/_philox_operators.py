"""Blocks of Philox as single nodes of a graph.

Traced operation by operation, a draw is some 150 nodes. While the compiler traces, it is one: so it
can be joined with others, or drawn ahead of a loop, before ``expanded()`` spells it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.library import Library, register_fake, register_vmap

from . import _floats, _philox

Kind = Literal["words", "wide_words", "keys", "normals", "wide_normals", "normal", "wide_normal"]
"""What to make of a block.

4 words, or 2 of 64 bits, or those of a key; 4 normal values, or 2 of 64 bits; the first of these.
"""

FIRST: Mapping[Kind, Kind] = {"normals": "normal", "wide_normals": "wide_normal"}
"""What to make of a block of which only the first number is used."""

Result = Literal["words", "wide_words", "keys", "uniforms", "two_uniforms", "wide_uniforms"]
"""What `ROUNDS` makes of a block.

Words and wide words lie side by side, in the last dimension. Keys, and uniform numbers in (0, 1],
lie in planes: all first ones, then all second ones.
"""

_UNIFORMS: Mapping[Kind, Result] = {
    "normals": "uniforms",
    "normal": "two_uniforms",
    "wide_normals": "wide_uniforms",
    "wide_normal": "wide_uniforms",
}

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


def around_rounds(key: Tensor, index: Tensor, kind: Kind) -> Tensor:
    """The same for a compiler that has Philox as one operation, `ROUNDS`.

    What follows from the words with functions whose last bit depends on how they are compiled is
    left to the compiler.
    """
    if kind in ("words", "wide_words"):
        found: Tensor = ROUNDS(key, index, kind)
        return found
    if kind == "keys":
        return cast("Tensor", ROUNDS(key, index, kind)).movedim(0, -1)
    uniforms = cast("Tensor", ROUNDS(key, index, _UNIFORMS[kind])).unbind()
    pairs = zip(uniforms[::2], uniforms[1::2], strict=True)
    normals = [number for pair in pairs for number in _floats.box_muller(*pair)]
    return torch.stack(normals[:1] if kind in FIRST.values() else normals, dim=-1)


def rounds(key: Tensor, index: Tensor, result: Result) -> Tensor:
    """What `ROUNDS` computes, in operations of torch."""
    if result in ("words", "wide_words"):
        return expanded(key, index, result)
    if result == "keys":
        return torch.stack(_of_words(key, index, result))
    w0, w1, w2, w3 = _words(key, index)
    if result == "wide_uniforms":
        return torch.stack([_floats.double(w0, w1), _floats.double(w2, w3)])
    wanted = (w0, w1) if result == "two_uniforms" else (w0, w1, w2, w3)
    return torch.stack([*map(_floats.single, wanted)])


def _of_words(key: Tensor, index: Tensor | int, kind: Kind) -> list[Tensor]:
    # Four tensors up to here: one stacked tensor with its flips makes Inductor materialise a buffer
    # a round.
    return _made(_words(key, index), kind)


def _words(key: Tensor, index: Tensor | int) -> _philox.Words:
    seed, offset = key.unsqueeze(-2).unbind(-1)
    return _philox.words(seed, offset, index)


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
_LANES_OF_ROUNDS: Mapping[Result, tuple[torch.dtype, int]] = {
    "words": (torch.int64, 4),
    "wide_words": (torch.int64, 2),
    "keys": (torch.int64, 2),
    "uniforms": (torch.float32, 4),
    "two_uniforms": (torch.float32, 2),
    "wide_uniforms": (torch.float64, 2),
}


def _shapes(key: Tensor, index: Tensor, kind: Kind) -> Tensor:
    """An empty tensor like the node's result."""
    shape = np.broadcast_shapes((*key.shape[:-1], 1), index.shape)
    dtype, count = _LANES[kind]
    return key.new_empty((*shape, count), dtype=dtype)


def shape_of_rounds(
    batch: tuple[int, ...], index: tuple[int, ...], result: Result
) -> tuple[torch.dtype, tuple[int, ...]]:
    """The dtype and the shape of the result of `ROUNDS`, for a batch of keys."""
    shape = np.broadcast_shapes((*batch, 1), index)
    dtype, count = _LANES_OF_ROUNDS[result]
    return dtype, (*shape, count) if result in ("words", "wide_words") else (count, *shape)


def _shapes_of_rounds(key: Tensor, index: Tensor, result: Result) -> Tensor:
    dtype, shape = shape_of_rounds(tuple(key.shape[:-1]), tuple(index.shape), result)
    return key.new_empty(shape, dtype=dtype)


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
_LIBRARY.define("philox_rounds(Tensor key, Tensor index, str result) -> Tensor")
_LIBRARY.impl("philox_rounds", rounds, "CompositeExplicitAutograd")
register_fake("purepyro::philox_rounds", _shapes_of_rounds, lib=_LIBRARY)

OPERATOR: Any = torch.ops.purepyro.philox.default
ROUNDS: Any = torch.ops.purepyro.philox_rounds.default
