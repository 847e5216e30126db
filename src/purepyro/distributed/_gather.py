"""Which members a rank has, and how those of all ranks are gathered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .._core._trees import mapped
from ._communicator import Communicator

T = TypeVar("T")


def share_of(ranks: Communicator, count: int) -> slice:
    """This rank's part of ``count`` members.

    Neighbouring members, as many as every other rank has or one more. If there are more ranks than
    members, some have none.
    """
    return slice(
        ranks.rank * count // ranks.size,
        (ranks.rank + 1) * count // ranks.size,
    )


def part_of(tree: T, share: slice) -> T:
    """A part of the members of a stacked pytree: a copy, so that the rest can be freed."""
    return mapped(lambda leaf: leaf[share].clone(), tree)


def gathered(
    ranks: Communicator,
    tree: T,
    counts: list[int],
    keep: Callable[[Tensor], Tensor] = lambda leaf: leaf,
) -> T:
    """The members of all ranks, from pytrees whose leaves have each rank's members first.

    Args:
        ranks: Connects the ranks.
        tree: This rank's part.
        counts: How many members each rank has.
        keep: What to keep of a gathered leaf, before the next one is gathered.
    """
    longest = max(counts)

    def gather(leaf: Tensor) -> Tensor:
        # As bytes, since no backend takes all dtypes, padded to the size of the largest part.
        width = leaf.shape[1:].numel() * leaf.element_size()
        if not width:
            return keep(leaf.new_empty(sum(counts), *leaf.shape[1:]))
        sent = torch.zeros(longest, width, dtype=torch.uint8, device=leaf.device)
        if len(leaf):
            # Cloned, since a contiguous tensor may have any stride in a dimension of size 1.
            rows = leaf.clone(memory_format=torch.contiguous_format).reshape(len(leaf), -1)
            sent[: len(leaf)] = rows.view(torch.uint8)
        parts = ranks.gather(sent)
        whole = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return keep(whole.view(leaf.dtype).reshape(sum(counts), *leaf.shape[1:]))

    return mapped(gather, tree)
