"""Runs of all members: chunk by chunk, or one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from ._arguments import Arguments
from ._members import joined, size_of, slice_of, stacked, taken
from ._state import EnsembleState
from ._train import Training, train


def in_chunks(
    how: Training, state: EnsembleState, num_steps: int, call: Arguments, chunk_size: int | None
) -> tuple[EnsembleState, Tensor]:
    """All steps of one chunk after the other; the last is padded, so that all are alike.

    Args:
        how: The step of many members.
        state: All members before the run.
        num_steps: How many steps.
        call: Their arguments.
        chunk_size: How many members run as one; ``None``: all.
    """
    count = size_of(state)
    size = min(chunk_size or count, count)
    if size == count:
        return train(how, state, num_steps, call.tensors, call.plan)
    states, losses = [], []
    for start in range(0, count, size):
        index = torch.arange(start, start + size).clamp(max=count - 1)
        own = call.of_members(index)
        after, loss = train(how, taken(state, index), num_steps, own, call.plan)
        real = torch.arange(min(size, count - start))
        states.append(taken(after, real))
        losses.append(loss[:, : len(real)])
    return joined(states), torch.cat(losses, dim=1)


def one_by_one(
    how: Training, state: EnsembleState, num_steps: int, call: Arguments
) -> tuple[EnsembleState, Tensor]:
    """All steps of one member after the other, without ``vmap``; arguments as above."""
    done = [
        train(how, slice_of(state, i), num_steps, call.of_member(i), call.plan)
        for i in range(size_of(state))
    ]
    return stacked([after for after, _ in done]), torch.stack([loss for _, loss in done], dim=1)
