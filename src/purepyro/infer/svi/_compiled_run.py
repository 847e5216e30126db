"""Compiled runs: whether to compile, what is compiled, and blocks of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import is_transforming
from ..._compile._jit import Jitted, is_enabled, jit
from ..._compile.scan._scan import Block, Loop
from ..._errors import SupportError
from ._nonfinite import Batch, Explain, StepRecord, all_finite
from ._progress import Progress
from ._state import SVIState

S = TypeVar("S")

# From so many steps on a run is compiled, unless it says whether to.
_WORTHWHILE = 1_000


class Graphs(NamedTuple):
    """The compiled steps of a fit: one by one, and in blocks."""

    step: Jitted[..., tuple[SVIState, Tensor]]
    loop: Loop[SVIState]


def graphs_of(step: Callable[..., tuple[SVIState, Tensor]]) -> Graphs:
    """A step as graphs, which are made when they are first run."""
    return Graphs(jit(step), Loop(step))


def is_compiled(wanted: bool | None, steps: int | None) -> bool:
    """Whether a run is to be compiled.

    Args:
        wanted: What ``SVI(compiled=...)`` says.
        steps: How many steps it has, if that is known.
    """
    compiles = (steps or 0) >= _WORTHWHILE if wanted is None else wanted
    return compiles and is_enabled() and not is_transforming()


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
    last: _TakenBlock[S] | None = None
    for after in loop.blocks(state, count, at, batch.args, batch.kwargs):
        taken = _TakenBlock(loop, block, at, batch, after.recorded, last)
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
class _TakenBlock(Generic[S]):
    """A block that was taken, and the one before; steps are pure, and can be taken again."""

    loop: Loop[S]
    start: Block[S]
    at: int
    batch: Batch
    losses: Tensor
    earlier: _TakenBlock[S] | None

    def before(self, index: int) -> S:
        """The state before a step of the block."""
        state = self.start.state
        if not index:
            return state
        return self.loop.take(state, index, self.at, *self.batch).state

    def previous(self, index: int) -> StepRecord[S] | None:
        """The step before a step of the block."""
        if index:
            return StepRecord(self.before(index - 1), self.batch)
        if self.earlier is None:
            return None
        return StepRecord(self.earlier.before(len(self.earlier.losses) - 1), self.batch)


def _reason(taken: _TakenBlock[S], after: S, explain: Explain[S]) -> str:
    """Why a block went wrong: at its first bad loss, or in the gradient of its last step."""
    finite = taken.losses.isfinite()
    if bool(finite.all()):
        now, index = after, len(finite)
    else:
        index = int(finite.int().argmin())
        now = taken.before(index)
    return explain(StepRecord(now, taken.batch), taken.previous(index)) or (
        f"The loss of a step is {taken.losses[min(index, len(finite) - 1)].item()}, though all "
        "sites are finite when it is taken again. Look for a loss or a model that is not a "
        "function of its arguments."
    )
