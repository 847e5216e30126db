"""How far a run is: a bar for a terminal, quiet log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from torch import Tensor
from tqdm import tqdm

LOGGER = logging.getLogger("purepyro.infer")

# The loss is read only so often, since reading it waits for the device.
_READ_EVERY = 100


class Progress:
    """Tells how far a run is, for as long as the ``with`` block lasts.

    Args:
        total: How many steps are to come, if that is known.
        shown: Whether to show a bar; ``None``: if standard error is a terminal. Without one, lines
            go to the logger ``purepyro.infer``, at the level INFO.
    """

    def __init__(self, total: int | None, shown: bool | None) -> None:
        self._total = total
        self._visible = sys.stderr.isatty() if shown is None else shown
        self._logged = not self._visible and LOGGER.isEnabledFor(logging.INFO)
        self._every = max(1, total // 10) if total and self._logged else _READ_EVERY
        self._count = 0

    def __enter__(self) -> Progress:
        hidden = not self._visible
        self._bar = tqdm(total=self._total, disable=hidden, desc="SVI", mininterval=0.5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, steps: int, loss: Tensor) -> None:
        """So many ``steps`` more were taken; ``loss`` is that of the last one, a scalar."""
        before = self._count // self._every
        self._count += steps
        due = self._count // self._every > before
        if self._visible:
            self._bar.update(steps)
            if due:
                self._bar.set_postfix(loss=f"{loss.item():.4g}", refresh=False)
        elif self._logged and due:
            of = f" of {self._total}" if self._total else ""
            LOGGER.info("SVI: %d%s steps, loss %.4g", self._count, of, loss.item())


def not_compiled(error: Exception) -> None:
    """Says that a run which was to be compiled goes on in eager mode, and why."""
    LOGGER.warning(
        "SVI: the steps of this run are not compiled. %s: %s", type(error).__name__, error
    )
