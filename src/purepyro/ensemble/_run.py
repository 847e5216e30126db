"""Runs of all members: chunk by chunk, or one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._arguments import Arguments
from ._members import joined, size_of, slice_of, stacked, taken
from ._state import EnsembleState
from ._train import train

Step = Callable[..., tuple[EnsembleState, Tensor]]


def in_chunks(
    step: Step,
    state: EnsembleState,
    num_steps: int,
    call: Arguments,
    chunk_size: int | None,
    *,
    progress_bar: bool | None,
) -> tuple[EnsembleState, Tensor]:
    """All steps of one chunk after the other; the last is padded, so that all are alike.

    Args:
        step: The step of one member.
        state: All members before the run.
        num_steps: How many steps.
        call: Their arguments.
        chunk_size: How many members run as one; ``None``: all.
        progress_bar: Whether to show one for each chunk.
    """
    count = size_of(state)
    size = min(chunk_size or count, count)
    over = torch.vmap(step, in_dims=(0, *call.dims))
    states, losses = [], []
    for start in range(0, count, size):
        index = torch.arange(start, start + size).clamp(max=count - 1)
        after, loss = train(
            over, taken(state, index), num_steps, call.of_members(index), progress_bar=progress_bar
        )
        real = torch.arange(min(size, count - start))
        states.append(taken(after, real))
        losses.append(loss[:, : len(real)])
    return joined(states), torch.cat(losses, dim=1)


def one_by_one(
    step: Step,
    state: EnsembleState,
    num_steps: int,
    call: Arguments,
    *,
    progress_bar: bool | None,
) -> tuple[EnsembleState, Tensor]:
    """All steps of one member after the other, without ``vmap``; arguments as above."""
    done = [
        train(step, slice_of(state, i), num_steps, call.of_member(i), progress_bar=progress_bar)
        for i in range(size_of(state))
    ]
    return stacked([after for after, _ in done]), torch.stack([loss for _, loss in done], dim=1)
