"""Runs of all members: chunk by chunk, or one by one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._compile.scan._scan import Loop
from .._core._trees import tensors_in
from ._in_dims import Arguments
from ._loop import Carry, Training, progress_of, train
from ._members import joined, size_of, slice_of, stacked, taken
from ._stacked import EnsembleState


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
    starts = range(0, count, size)
    with progress_of(how, num_steps * len(starts)) as progress:
        if size == count:
            return train(how, state, num_steps, call.tensors, call.plan, progress)
        states, losses = [], []
        for start in starts:
            index = torch.arange(start, start + size).clamp(max=count - 1)
            own = call.of_members(index)
            after, loss = train(how, taken(state, index), num_steps, own, call.plan, progress)
            real = torch.arange(min(size, count - start))
            states.append(taken(after, real))
            losses.append(loss[:, : len(real)])
        return joined(states), torch.cat(losses, dim=1)


def fitting(one: Loop[Carry], state: EnsembleState, call: Arguments) -> int | None:
    """How many members a compiled run had best take at once; ``None``: all.

    On the CPU as many as the cache holds, since tensors that are larger are written to memory and
    read again, and given back to the system, at each step.

    Args:
        one: The step of one member.
        state: All members before the run.
        call: Their arguments.
    """
    count = size_of(state)
    if count == 1 or any(leaf.device.type != "cpu" for leaf in tensors_in(state)):
        return None
    first = slice_of(state, 0)
    carry = Carry(first, first.svi.step.clone())
    try:
        largest = one.largest(carry, call.of_member(0), {"plan": call.plan})
    except Exception:  # which the run itself will meet, and tell of
        return None
    chunks = math.ceil(count * largest / _CACHE) or 1
    return math.ceil(count / chunks)


# Half of what processors have next to each core, since a step has a few such tensors.
_CACHE = 1 << 20


def one_by_one(
    how: Training, state: EnsembleState, num_steps: int, call: Arguments
) -> tuple[EnsembleState, Tensor]:
    """All steps of one member after the other, without ``vmap``; arguments as above."""
    count = size_of(state)
    with progress_of(how, num_steps * count) as progress:
        done = [
            train(how, slice_of(state, i), num_steps, call.of_member(i), call.plan, progress)
            for i in range(count)
        ]
    return stacked([after for after, _ in done]), torch.stack([loss for _, loss in done], dim=1)
