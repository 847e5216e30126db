"""Runs in compiled blocks of steps."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import torch
from torch import Tensor

from .._compile._loop import Loop
from .._errors import SupportError
from ._nonfinite import Batch, Explain, Taken, all_finite
from ._progress import Progress

S = TypeVar("S")


def run_blocks(
    loop: Loop[S],
    state: S,
    count: int,
    at: int,
    batch: Batch,
    progress: Progress,
    explain: Explain[S] | None,
) -> tuple[S, Tensor]:
    """The state after ``count`` steps, and all losses.

    Between blocks the progress is told, and the losses are read: one that is not finite is
    explained and raised.

    Args:
        loop: The steps.
        state: The state before them.
        count: How many.
        at: The number of the first one.
        batch: The arguments of all.
        progress: Is told.
        explain: Says why a step went wrong; ``None``: losses are not read.
    """
    losses = [torch.zeros(0)]
    for block in loop.blocks(state, count, at, batch.args, batch.kwargs):
        if explain is not None and not bool(all_finite((block.recorded, block.state))):
            again = _Again(loop, state, at, batch)
            raise SupportError(_reason(again, block.recorded, block.state, explain))
        state, at = block.state, at + len(block.recorded)
        progress.advance(len(block.recorded), block.recorded[-1])
        losses.append(block.recorded)
    return state, torch.cat(losses[1:] or losses)


@attrs.frozen
class _Again(Generic[S]):
    """The steps of a block, to be taken again up to one of them: they are pure."""

    loop: Loop[S]
    state: S
    at: int
    batch: Batch

    def before(self, index: int) -> S:
        """The state before a step."""
        if not index:
            return self.state
        return self.loop.take(self.state, index, self.at, *self.batch).state


def _reason(again: _Again[S], losses: Tensor, after: S, explain: Explain[S]) -> str:
    """Why a block went wrong: at its first bad loss, or in the gradient of its last step."""
    finite = losses.isfinite()
    if bool(finite.all()):
        now, index = after, len(losses)
    else:
        index = int(finite.int().argmin())
        now = again.before(index)
    previous = Taken(again.before(index - 1), again.batch) if index else None
    return explain(Taken(now, again.batch), previous) or (
        f"The loss of a step is {losses[min(index, len(losses) - 1)].item()}, though all sites are "
        "finite when it is taken again. Look for a loss or a model that is not a function of its "
        "arguments."
    )
