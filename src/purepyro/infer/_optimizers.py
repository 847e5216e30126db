"""Functional optimisers: any ``(init, update)`` pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import torch
from torchopt.base import GradientTransformation

from .._boundary import is_batched, tensors_in
from .._types import Params

OptState: TypeAlias = Any
"""The state of an optimiser: a pytree of tensors of its own kind."""


class Optimizer(Protocol):
    """A pure optimiser, as ``torchopt.adam(1e-2)`` is one.

    Its ``update`` is called as ``update(gradients, state, params=params)`` and returns what to add
    to the parameters, with the new state.

    Example:
        >>> import torchopt
        >>> from purepyro.infer import Optimizer
        >>> optim: Optimizer = torchopt.adam(1e-2)
    """

    @property
    def init(self) -> Callable[..., Any]:
        """From parameters to a first state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """From gradients and a state to what to add, and the next state."""
        ...


def descend(
    optim: Optimizer, gradients: Params, state: OptState, params: Params
) -> tuple[Params, OptState]:
    """The parameters and the state after one step; the arguments stay as they are."""

    def update(gradients: Params, state: OptState, params: Params) -> tuple[Params, OptState]:
        if isinstance(optim, GradientTransformation):
            updates, state = optim.update(gradients, state, params=params, inplace=False)
        else:
            updates, state = optim.update(gradients, state, params=params)
        return {name: params[name] + updates[name] for name in params}, state

    if any(is_batched(gradient) for gradient in tensors_in(gradients)):
        # torchopt computes in place on its own tensors, which vmap takes only so.
        result: tuple[Params, OptState] = torch.func.functionalize(update)(gradients, state, params)
        return result
    return update(gradients, state, params)
