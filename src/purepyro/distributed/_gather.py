"""Which members are whose, and how they come together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._core._trees import mapped
from ..ensemble._in_dims import InDims
from ..infer.svi._nonfinite import Batch
from ._communicator import Link

T = TypeVar("T")


def share_of(link: Link, count: int) -> slice:
    """This rank's part of ``count`` members.

    They are next to each other, and as many as every other rank has, or one more; none, where there
    are more ranks than members.
    """
    return slice(link.rank * count // link.size, (link.rank + 1) * count // link.size)


def part_of(tree: T, share: slice) -> T:
    """Some members of a stacked pytree; a copy, so that the others need not be kept."""
    return mapped(lambda leaf: leaf[share].clone(), tree)


def own_arguments(
    in_dims: InDims, args: tuple[Any, ...], kwargs: Mapping[str, Any], share: slice
) -> Batch:
    """The arguments of an ensemble's call, for some of its members."""

    def cut(argument: object, dim: int | None) -> object:
        if dim is None:
            return argument
        return mapped(lambda leaf: leaf.movedim(dim, 0)[share].movedim(0, dim), argument)

    of_args = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
    of_kwargs = None if isinstance(in_dims, tuple) else in_dims
    own = tuple(cut(arg, dim) for arg, dim in zip(args, of_args, strict=True))
    return Batch(own, {name: cut(value, of_kwargs) for name, value in kwargs.items()})


def gathered(
    link: Link, tree: T, counts: list[int], keep: Callable[[Tensor], Tensor] = lambda leaf: leaf
) -> T:
    """All members of a pytree whose leaves hold each rank's along their first dimension.

    Args:
        link: To the other ranks.
        tree: This rank's part.
        counts: How many members each rank has.
        keep: What to keep of each leaf, before the next one comes.
    """
    longest = max(counts)

    def together(leaf: Tensor) -> Tensor:
        # As bytes, since no backend takes all dtypes, and of one length.
        width = leaf.shape[1:].numel() * leaf.element_size()
        if not width:
            return keep(leaf.new_empty(sum(counts), *leaf.shape[1:]))
        sent = torch.zeros(longest, width, dtype=torch.uint8, device=leaf.device)
        if len(leaf):
            # Cloned, since a contiguous tensor may have any stride where it has one entry only.
            rows = leaf.clone(memory_format=torch.contiguous_format).reshape(len(leaf), -1)
            sent[: len(leaf)] = rows.view(torch.uint8)
        parts = link.gathered(sent)
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return keep(whole.view(leaf.dtype).reshape(sum(counts), *leaf.shape[1:]))

    return mapped(together, tree)
