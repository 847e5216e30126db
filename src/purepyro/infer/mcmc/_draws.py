"""The draws of a run: taken out of the slots, constrained, and put in their places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..._core._trees import mapped
from ._kernel import info_of
from ._state import MCMCInfo, Slots

# How many elements wait to be constrained together.
_STAGED = 1 << 20


class Draws:
    """The draws of some chains, with room for all that are to come.

    Args:
        chains: How many chains.
        count: How many draws each has.
        constrain: From positions (draws, D) to values by site (draws, ...).
    """

    def __init__(
        self, chains: int, count: int, constrain: Callable[[Tensor], dict[str, Tensor]]
    ) -> None:
        self._shape = chains, count
        self._constrain = constrain
        self._next = torch.zeros(chains, dtype=torch.int64)
        self._staged: list[tuple[Tensor, Tensor]] = []
        self._elements = 0
        self._values: dict[str, Tensor] = {}
        self._infos: Tensor | None = None

    def take(self, slots: Slots) -> None:
        """Take the draws out of the slots; chains behind the last are padding."""
        slots = mapped(lambda leaf: leaf[: self._shape[0]], slots)
        filled = slots.filled.cpu()
        slot = torch.arange(slots.info.shape[1])
        used = slot < filled.unsqueeze(-1)
        if not bool(used.any()):
            return
        place = (torch.arange(len(filled)) * self._shape[1] + self._next).unsqueeze(-1) + slot
        place = place[used]
        self._next += filled
        infos = slots.info.cpu()[used]
        if self._infos is None:
            self._infos = infos.new_zeros(*self._shape, infos.shape[-1])
        self._infos.flatten(0, 1)[place] = infos
        positions = slots.position[used.to(slots.position.device)]
        self._staged.append((place, positions))
        self._elements += positions.numel()
        if self._elements > _STAGED:
            self._write()

    def samples(self) -> dict[str, Tensor]:
        """The values by site, (chains, draws, ...)."""
        self._write()
        return self._values

    def stats(self) -> MCMCInfo:
        """What the transitions were like, (chains, draws)."""
        assert self._infos is not None
        return info_of(self._infos)

    def _write(self) -> None:
        if not self._staged:
            return
        place = torch.cat([place for place, _ in self._staged])
        positions = torch.cat([positions for _, positions in self._staged])
        self._staged, self._elements = [], 0
        for name, value in self._constrain(positions).items():
            value = value.detach().cpu()
            if name not in self._values:
                self._values[name] = value.new_zeros((*self._shape, *value.shape[1:]))
            self._values[name].flatten(0, 1)[place] = value
