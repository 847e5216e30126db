"""The loop over steps: the one place where an ensemble spends its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._compat._pyro import is_transforming
from .._compile.scan._scan import Block, Loop
from .._errors import OutOfRangeError
from ..infer.svi._progress import Progress, not_compiled
from ._in_dims import Plan
from ._stacked import EnsembleState


class Carry(NamedTuple):
    """What a loop carries: members, and the number of the step for those that are alive.

    A member in quarantine stands still, and its own number with it. A number that goes up by one
    whatever happens lets the noise of many steps be drawn ahead.
    """

    state: EnsembleState
    clock: Tensor


Step: TypeAlias = Callable[..., tuple[Carry, Tensor]]
"""``step(carry, *tensors, plan=plan)``: one step of some members, and their losses."""


class Training(NamedTuple):
    """How to train.

    Attributes:
        step: The step.
        loop: The same in compiled blocks; ``None``: do not compile.
        must: Whether a step that cannot be traced is an error, or is taken in eager mode.
        progress_bar: Whether to show one; by default if a terminal looks on.
    """

    step: Step
    loop: Loop[Carry] | None
    must: bool
    progress_bar: bool | None


def progress_of(how: Training, total: int) -> AbstractContextManager[Progress | None]:
    """What tells how far a run of so many steps is; nothing within a transform."""
    # There a loss cannot be read.
    return nullcontext() if is_transforming() else Progress(total, how.progress_bar)


def train(
    how: Training,
    state: EnsembleState,
    num_steps: int,
    tensors: tuple[Tensor, ...],
    plan: Plan,
    progress: Progress | None,
) -> tuple[EnsembleState, Tensor]:
    """The state after ``num_steps`` steps, and the losses of each along a first dimension.

    Args:
        how: The step, and how to take it.
        state: Some members, or a single one, before them.
        num_steps: How many steps, at least one.
        tensors: The tensors of the arguments, the same for each step.
        plan: All else of the arguments.
        progress: What to tell of the steps; ``None``: this is within a transform.
    """
    # A copy: the graphs' guards refuse a tensor that comes twice, and would trace anew.
    carry = Carry(state, state.svi.step.clone())
    if how.loop is not None and progress is not None:
        at = int(state.svi.step.flatten()[0])
        blocks = how.loop.blocks(carry, num_steps, at, tensors, {"plan": plan})
        try:
            return _collected(carry, blocks, progress)
        except OutOfRangeError:
            raise
        except Exception as error:  # an error of the model's own comes again
            if how.must:
                raise
            not_compiled(error)
    return _collected(carry, _singly(how, carry, num_steps, tensors, plan), progress)


def _singly(
    how: Training, carry: Carry, num_steps: int, tensors: tuple[Tensor, ...], plan: Plan
) -> Iterator[Block[Carry]]:
    for _ in range(num_steps):
        carry, loss = how.step(carry, *tensors, plan=plan)
        yield Block.of(carry, loss.unsqueeze(0))


def _collected(
    start: Carry, blocks: Iterator[Block[Carry]], progress: Progress | None
) -> tuple[EnsembleState, Tensor]:
    block, losses = Block.of(start, torch.zeros(0)), []
    for block in blocks:
        losses.append(block.recorded)
        if progress is not None:
            progress.advance(len(block.recorded), block.recorded[-1].nanmean())
    return block.state.state, torch.cat(losses)
