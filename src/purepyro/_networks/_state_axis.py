"""The buffers of particles and members: one state each under vmap, and one again after."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .._core._types import State, Values
from .._core._whole_numbers import whole
from .._errors import DeclarationError, ShapeError, describe


def expand_state(state: Values, num: int) -> State:
    """A state for each of ``num`` particles or members, stacked, to run them under ``torch.vmap``.

    A layer such as BatchNorm changes its buffers in each run, so under vmap each needs its own.

    Args:
        state: The buffers of a model, as :func:`init_state` returns them.
        num: How many.

    Raises:
        DeclarationError: if ``num`` is not positive.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from purepyro import apply_with_state, expand_state, init, init_state, lift, random
        >>> from purepyro import reduce_state
        >>> model, key = lift(nn.BatchNorm1d(2)), random.key(0)
        >>> params, x = init(model, key), random.normal(key, 4, 8, 2)
        >>> def run(state, x):
        ...     return apply_with_state(model, params, key, state, x)
        >>> _, states = torch.vmap(run)(expand_state(init_state(model), 4), x)
        >>> reduce_state(states, "mean")["running_mean"].shape
        torch.Size([2])
    """
    count = whole(num, 1)
    if count is None:
        raise DeclarationError(
            f"expand_state was given num={describe(num)}. It is how many states to stack, 1 or "
            "more."
        )
    return {name: buffer.expand(count, *buffer.shape).clone() for name, buffer in state.items()}


def reduce_state(states: Values, policy: Literal["mean", "first"]) -> State:
    """One state from stacked ones, the inverse of :func:`expand_state`, by an explicit policy.

    Args:
        states: Stacked buffers, one for each particle or member.
        policy: ``"mean"`` averages floating buffers; whole numbers, such as counts of batches, are
            those of the first. ``"first"`` takes all from the first.

    Raises:
        DeclarationError: if there is no such policy.
        ShapeError: if a buffer is not stacked.

    Example:
        >>> import torch
        >>> from purepyro import reduce_state
        >>> reduce_state({"running_mean": torch.tensor([[0.0, 1.0], [2.0, 3.0]])}, "mean")
        {'running_mean': tensor([1., 2.])}
    """
    if policy not in ("mean", "first"):
        raise DeclarationError(
            f"reduce_state was given the policy {policy!r}. Write 'mean' for the average of the "
            "states, or 'first' for that of the first particle."
        )
    return {name: _reduced(name, buffer, policy) for name, buffer in states.items()}


def _reduced(name: str, buffer: Tensor, policy: str) -> Tensor:
    if not buffer.dim() or not len(buffer):
        raise ShapeError(
            f"The buffer {name!r} has the shape {list(buffer.shape)}, which is no stack, so there "
            "is nothing to reduce. Pass the states that came out of vmap."
        )
    averages = policy == "mean" and buffer.is_floating_point()
    return buffer.mean(0) if averages else buffer[0].clone()
