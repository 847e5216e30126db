"""The loop over steps: the one place where an ensemble spends its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from .._boundary import is_transforming
from ..infer._progress import with_progress

S = TypeVar("S")


def train(
    step: Callable[..., tuple[S, Tensor]],
    state: S,
    num_steps: int,
    args: tuple[Tensor, ...],
    *,
    progress_bar: bool | None = None,
) -> tuple[S, Tensor]:
    """The state after ``num_steps`` steps, and the losses of each along a first dimension.

    Args:
        step: A pure function ``step(state, *args)`` of pytrees of tensors.
        state: Where to start.
        num_steps: How many steps, at least one.
        args: The same tensors for each step.
        progress_bar: Whether to show one; by default if a terminal looks on.
    """
    losses: list[Tensor] = []
    records = _records(step, state, num_steps, args)
    if not is_transforming():  # there a loss cannot be read
        records = with_progress(records, num_steps, progress_bar)
    for _, (now, loss), _ in records:
        state = now
        losses.append(loss)
    return state, torch.stack(losses)


def _records(
    step: Callable[..., tuple[S, Tensor]], state: S, num_steps: int, args: tuple[Tensor, ...]
) -> Iterator[tuple[int, tuple[S, Tensor], Tensor]]:
    for count in range(1, num_steps + 1):
        state, loss = step(state, *args)
        yield count, (state, loss), loss.nanmean()
