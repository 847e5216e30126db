"""How far a run is: a bar for a terminal, quiet log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import Tensor
from tqdm import tqdm

R = TypeVar("R", bound=tuple[int, object, Tensor])

LOGGER = logging.getLogger("purepyro.infer")

# The loss is read only so often, since reading it waits for the device.
_READ_EVERY = 100


def with_progress(records: Iterable[R], total: int | None, shown: bool | None) -> Iterator[R]:
    """The same records ``(step, state, loss)``, while telling how far they are.

    Args:
        records: One for each step.
        total: How many are to come, if that is known.
        shown: Whether to show a bar; ``None``: if standard error is a terminal. Without one, lines
            go to the logger ``purepyro.infer``, at the level INFO.
    """
    visible = sys.stderr.isatty() if shown is None else shown
    logged = not visible and LOGGER.isEnabledFor(logging.INFO)
    every = max(1, total // 10) if total and logged else _READ_EVERY
    with tqdm(total=total, disable=not visible, desc="SVI", mininterval=0.5) as bar:
        for count, record in enumerate(records, start=1):
            if visible:
                bar.update()
                if count % _READ_EVERY == 0:
                    bar.set_postfix(loss=f"{record[2].item():.4g}", refresh=False)
            elif logged and count % every == 0:
                of = f" of {total}" if total else ""
                LOGGER.info("SVI: %d%s steps, loss %.4g", count, of, record[2].item())
            yield record
