"""How far a run is: a bar in a terminal or a notebook, quiet log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from types import TracebackType

from torch import Tensor
from tqdm.auto import tqdm

from ..._compile._compiler_thread import told_while_compiling

LOGGER = logging.getLogger("purepyro.infer")

# The loss is read only so often, since reading it waits for the device.
_READ_EVERY = 100
_LOG_EVERY = 10  # seconds, of the compiler's


def _is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or a notebook's."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Progress:
    """Tells how far a run is, for as long as the ``with`` block lasts.

    Args:
        total: How many steps are to come, if that is known.
        shown: Whether to show a bar; ``None``: if standard error is a terminal, or this is a
            notebook. Without one, lines go to the logger ``purepyro.infer``, at the level INFO.
            While the steps are compiled either says so, with the seconds so far.
    """

    def __init__(self, total: int | None, shown: bool | None) -> None:
        self._total = total
        self._visible = _is_watched() if shown is None else shown
        self._logged = not self._visible and LOGGER.isEnabledFor(logging.INFO)
        self._every = max(1, total // 10) if total and self._logged else _READ_EVERY
        self._count = 0
        self._compiled = 0.0  # the seconds that were told last
        self._blocks = ExitStack()

    def __enter__(self) -> Progress:
        # A bar that nobody sees is not even made: an interrupt while tqdm holds its lock would
        # leave it locked for good.
        self._bar = tqdm(total=self._total, desc="SVI", mininterval=0.5) if self._visible else None
        self._blocks.enter_context(told_while_compiling(self._compiling))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._blocks.close()
        if self._bar is not None:
            self._bar.close()

    def _compiling(self, seconds: float) -> None:
        """The compiler has been at work for so long."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"compiling, {seconds:.0f} s")
        elif self._logged and seconds // _LOG_EVERY > self._compiled // _LOG_EVERY:
            LOGGER.info("SVI: compiling the steps, %.0f s so far", seconds)
        self._compiled = seconds

    def advance(self, steps: int, loss: Tensor) -> None:
        """So many ``steps`` more were taken; ``loss`` is that of the last one, a scalar."""
        before = self._count // self._every
        self._count += steps
        due = self._count // self._every > before
        if self._bar is not None:
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
