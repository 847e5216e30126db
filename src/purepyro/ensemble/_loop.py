"""The loop over the steps of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._compat._transforms import is_transforming
from .._compile.scan._scan import Block, Loop
from .._errors import OutOfRangeError
from ..infer.svi._progress import Progress, not_compiled
from ._in_dims import Plan
from ._stacked import EnsembleState


class Carry(NamedTuple):
    """What the loop carries from step to step.

    The steps that a member in quarantine has taken are no longer counted. The counter here goes up
    in every step, so the noise of many steps can be drawn at once.

    Attributes:
        state: Some members.
        counter: How many steps those have taken that are not in quarantine.
    """

    state: EnsembleState
    counter: Tensor


Step: TypeAlias = Callable[..., tuple[Carry, Tensor]]
"""``step(carry, *tensors, plan=plan)``: one step of some members, and their losses."""


class Training(NamedTuple):
    """How to train.

    Attributes:
        step: The step.
        loop: The same in compiled blocks; ``None``: do not compile.
        must_compile: Whether a step that cannot be traced is an error, or is taken in eager mode.
        progress_bar: Whether to show one; by default if a terminal looks on.
    """

    step: Step
    loop: Loop[Carry] | None
    must_compile: bool
    progress_bar: bool | None


def progress_of(how: Training, total: int) -> AbstractContextManager[Progress | None]:
    """The progress of a run of ``total`` steps; none within a transform."""
    # There losses cannot be read.
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
        plan: The arguments without their tensors.
        progress: Is told of the steps; ``None`` within a transform.
    """
    # A copy: the guards of graphs refuse one tensor in two places, and would trace again.
    carry = Carry(state, state.svi.step.clone())
    if how.loop is not None and progress is not None:
        at = int(state.svi.step.flatten()[0])
        blocks = how.loop.blocks(carry, num_steps, at, tensors, {"plan": plan})
        try:
            return _collected(carry, blocks, progress)
        except OutOfRangeError:
            raise
        except Exception as error:  # an error of the model's own comes again
            if how.must_compile:
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
