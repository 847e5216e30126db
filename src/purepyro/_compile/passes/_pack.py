"""Many small tensors in few vectors."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor, fx

from ..._compat._tracing import aten
from ._graph import Builder

# Larger tensors travel alone. Each tensor that a loop carries costs two handles a step.
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

    def pack(self, builder: Builder, nodes: Sequence[fx.Node]) -> list[fx.Node]:
        """The vectors."""
        packed = []
        for members in self.groups:
            if len(members) == 1:
                packed.append(nodes[members[0]])
                continue
            flat = [builder.call(aten.reshape.default, nodes[i], [self.count(i)]) for i in members]
            packed.append(builder.call(aten.cat.default, flat))
        return packed

    def unpack(self, builder: Builder, packed: Sequence[fx.Node]) -> list[fx.Node]:
        """The tensors again."""
        found: dict[int, fx.Node] = {}
        for vector, members in zip(packed, self.groups, strict=True):
            if len(members) == 1:
                found[members[0]] = vector
                continue
            start = 0
            for i in members:
                stop = start + self.count(i)
                piece = builder.call(aten.slice.Tensor, vector, 0, start, stop)
                found[i] = builder.call(aten.reshape.default, piece, list(self.shapes[i]))
                start = stop
        return [found[i] for i in range(len(self.shapes))]

    def joined(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The vectors of these tensors."""
        return [
            tensors[members[0]]
            if len(members) == 1
            else torch.cat([tensors[i].reshape(-1) for i in members])
            for members in self.groups
        ]

    def parted(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors in these vectors, of which they are parts."""
        found: dict[int, Tensor] = {}
        for vector, members in zip(vectors, self.groups, strict=True):
            if len(members) == 1:
                found[members[0]] = vector
                continue
            parts = torch.split(vector, [self.count(i) for i in members])
            shapes = [self.shapes[i] for i in members]
            found |= zip(members, map(Tensor.view, parts, shapes), strict=True)
        return [found[i] for i in range(len(self.shapes))]

    def count(self, i: int) -> int:
        """How many numbers a tensor has."""
        return torch.Size(self.shapes[i]).numel()
