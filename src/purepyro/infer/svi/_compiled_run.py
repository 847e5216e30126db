"""Runs in compiled blocks of steps."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
import torch
from torch import Tensor

from ..._compile.scan._scan import Block, Loop
from ..._errors import SupportError
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
    block = Block.of(state, torch.zeros(0))
    losses: list[Tensor] = []
    last: _Taken[S] | None = None
    for after in loop.blocks(state, count, at, batch.args, batch.kwargs):
        taken = _Taken(loop, block, at, batch, after.recorded, last)
        # A bad gradient shows in the next loss, so that the state need not be looked at.
        if explain is not None and not bool(after.recorded.isfinite().all()):
            raise SupportError(_reason(taken, after.state, explain))
        last = attrs.evolve(taken, earlier=None)
        block, at = after, at + len(after.recorded)
        progress.advance(len(block.recorded), block.recorded[-1])
        losses.append(block.recorded)
    if explain is not None and last is not None and not bool(all_finite(block.state)):
        raise SupportError(_reason(last, block.state, explain))
    return block.state, torch.cat(losses or [block.recorded])


@attrs.frozen
class _Taken(Generic[S]):
    """A block that was taken, and the one before; steps are pure, and can be taken again."""

    loop: Loop[S]
    start: Block[S]
    at: int
    batch: Batch
    losses: Tensor
    earlier: _Taken[S] | None

    def before(self, index: int) -> S:
        """The state before a step of the block."""
        state = self.start.state
        if not index:
            return state
        return self.loop.take(state, index, self.at, *self.batch).state

    def previous(self, index: int) -> Taken[S] | None:
        """The step before a step of the block."""
        if index:
            return Taken(self.before(index - 1), self.batch)
        if self.earlier is None:
            return None
        return Taken(self.earlier.before(len(self.earlier.losses) - 1), self.batch)


def _reason(taken: _Taken[S], after: S, explain: Explain[S]) -> str:
    """Why a block went wrong: at its first bad loss, or in the gradient of its last step."""
    finite = taken.losses.isfinite()
    if bool(finite.all()):
        now, index = after, len(finite)
    else:
        index = int(finite.int().argmin())
        now = taken.before(index)
    return explain(Taken(now, taken.batch), taken.previous(index)) or (
        f"The loss of a step is {taken.losses[min(index, len(finite) - 1)].item()}, though all "
        "sites are finite when it is taken again. Look for a loss or a model that is not a "
        "function of its arguments."
    )
