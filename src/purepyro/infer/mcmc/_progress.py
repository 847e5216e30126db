"""How far chains are: a bar for a terminal, quiet log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Generic, TypeVar

from tqdm import tqdm

from ..svi._progress import LOGGER
from ._moves import Walk

T = TypeVar("T")


class ChainProgress(Generic[T]):
    """Tells how far chains are, for as long as the ``with`` block lasts.

    Args:
        total: How many transitions there are to come, of all chains together.
        shown: Whether to show a bar; ``None``: if standard error is a terminal. Without one, lines
            go to the logger ``purepyro.infer``, at the level INFO.
    """

    def __init__(self, total: int, shown: bool | None) -> None:
        self._total = total
        self._visible = sys.stderr.isatty() if shown is None else shown
        self._logged = not self._visible and LOGGER.isEnabledFor(logging.INFO)
        self._count = self._divergent = 0

    def __enter__(self) -> ChainProgress[T]:
        self._bar = tqdm(total=self._total, desc="MCMC", mininterval=0.5) if self._visible else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, before: Walk[T], after: Walk[T]) -> None:
        """Chains went from one walk to another, whose slots have the draws in between."""
        if not (self._visible or self._logged):
            return
        moved = int((after.chains.transition - before.chains.transition).sum())
        earlier, self._count = self._count, self._count + moved
        step_size = float(after.chains.adaptation.step_size.mean())
        filled = int(after.slots.filled.max())
        info = after.slots.info[:, :filled]
        self._divergent += int(info[..., 1].sum())
        if self._bar is not None:
            self._bar.update(moved)
            self._bar.set_postfix(
                step_size=f"{step_size:.3g}", divergences=self._divergent, refresh=False
            )
        elif 10 * self._count // self._total > 10 * earlier // self._total:
            LOGGER.info(
                "MCMC: %d of %d transitions, step size %.3g, %d divergences",
                self._count,
                self._total,
                step_size,
                self._divergent,
            )
