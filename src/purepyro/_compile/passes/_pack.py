"""Many small tensors in few vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
import torch
from torch import Tensor

# A tensor, or the node of one.
T = TypeVar("T")

# Larger tensors stay on their own. Each tensor that a loop carries costs two handles a step.
SMALL = 2048


@attrs.frozen
class Pack:
    """How tensors of one dtype and device lie in one vector, and larger ones by themselves.

    Attributes:
        shapes: Of the tensors.
        groups: For each vector the tensors in it, in order; a single one keeps its shape.
    """

    shapes: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, values: Sequence[Tensor]) -> Pack:
        """The packing of tensors like these."""
        groups: dict[object, list[int]] = {}
        for i, value in enumerate(values):
            small = value.numel() <= SMALL
            groups.setdefault((value.dtype, value.device) if small else i, []).append(i)
        return cls(
            tuple(tuple(value.shape) for value in values),
            tuple(tuple(members) for members in groups.values()),
        )

    def pack(self, tensors: Sequence[T], join: Callable[[list[T]], T]) -> list[T]:
        """The vectors of these tensors; ``join`` puts some of them side by side."""
        return [
            tensors[members[0]] if len(members) == 1 else join([tensors[i] for i in members])
            for members in self.groups
        ]

    def unpack(
        self, vectors: Sequence[T], take: Callable[[T, int, int, tuple[int, ...]], T]
    ) -> list[T]:
        """The tensors in these vectors; ``take`` gives one, by start, stop and shape."""
        found: dict[int, T] = {}
        for vector, members in zip(vectors, self.groups, strict=True):
            if len(members) == 1:
                found[members[0]] = vector
                continue
            start = 0
            for i in members:
                stop = start + torch.Size(self.shapes[i]).numel()
                found[i] = take(vector, start, stop, self.shapes[i])
                start = stop
        return [found[i] for i in range(len(self.shapes))]


def join(tensors: Sequence[Tensor]) -> Tensor:
    """The elements of some tensors in one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def take(vector: Tensor, start: int, stop: int, shape: tuple[int, ...]) -> Tensor:
    """The tensor of this shape that lies in a vector."""
    return vector[start:stop].view(shape)
