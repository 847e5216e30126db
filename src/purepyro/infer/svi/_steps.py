"""A step of a fit in its two halves, and the loss behind it, as pure functions of an SVI.

``svi.step(state)`` is ``descend(svi, state, gradients(svi, state))``. Who has something to do
between the halves, such as a mean over processes, calls them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..._compat._isolation import unvalidated
from ..._compat._pyro import is_transforming
from ..._core._trees import where
from ..._core._types import Params, State
from ..._errors import SupportError
from ...random import Key, fold_in
from ..losses._elbo import ELBO, LossOfParts
from ._gradients import gradients_at, leaves_of
from ._nonfinite import OnNonfinite, all_finite
from ._optimizers import Optimizer, apply_update
from ._patterns import chosen
from ._state import SVIRecord, SVIState


class Settings(Protocol):
    """The fields of an ``SVI``, which say all about it."""

    @property
    def model(self) -> Callable[..., object]:
        """The model."""
        ...

    @property
    def guide(self) -> Callable[..., object]:
        """The guide."""
        ...

    @property
    def optim(self) -> Optimizer:
        """The optimiser."""
        ...

    @property
    def loss(self) -> ELBO:
        """The loss."""
        ...

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that stay as they are."""
        ...

    @property
    def on_nonfinite(self) -> OnNonfinite:
        """What happens at a loss that is not finite."""
        ...

    @property
    def callback(self) -> Callable[[SVIRecord], object] | None:
        """What runs call after each step."""
        ...

    @property
    def progress_bar(self) -> bool | None:
        """Whether runs show one."""
        ...

    @property
    def compiled(self) -> bool | None:
        """Whether runs compile their steps."""
        ...


class Gradients(NamedTuple):
    """The first half of a step: what came of the runs of model and guide.

    Attributes:
        loss: The loss, a scalar without a gradient.
        by_name: Its gradient by each parameter that is learnt.
        buffers: The buffers of the networks after the runs.
    """

    loss: Tensor
    by_name: Params
    buffers: State


def gradients(svi: Settings, state: SVIState, /, *args: Any, **kwargs: Any) -> Gradients:
    """The first half of the step from ``state``: the loss and its gradients.

    A gradient is zero where the loss does not depend on the parameter.

    Args:
        svi: The fit.
        state: The state before the step.
        *args: The arguments of model and guide.
        **kwargs: The same, by name.
    """
    loss, params = loss_of_learnt(svi, state, args, kwargs), learnt_params(svi, state.params)
    if not params:
        value, buffers = loss(params)
        return Gradients(value.detach(), {}, buffers)
    if is_transforming():
        found, (value, buffers) = torch.func.grad_and_value(loss, has_aux=True)(params)
        return Gradients(value, found, buffers)
    # Inside of no transform, autograd is the same at half the time: functorch wraps every tensor.
    leaves = leaves_of(params)
    with torch.enable_grad():
        value, buffers = loss(leaves)
    by_name = {
        name: torch.zeros_like(params[name]) if gradient is None else gradient
        for name, gradient in gradients_at(value, leaves).items()
    }
    return Gradients(value.detach(), by_name, buffers)


def descend(svi: Settings, state: SVIState, found: Gradients, /) -> tuple[SVIState, Tensor]:
    """The second half of the step: the state after it, and the loss before it.

    Args:
        svi: The fit.
        state: The state before the step.
        found: What ``gradients()`` returned for it.
    """
    before, buffers = learnt_params(svi, state.params), found.buffers
    learnt, opt_state = apply_update(svi.optim, found.by_name, state.opt_state, before)
    if svi.on_nonfinite == "skip":
        good = all_finite((found.loss, found.by_name, learnt))
        learnt = where(good, learnt, before)
        opt_state = where(good, opt_state, state.opt_state)
        buffers = where(good, buffers, state.buffers)
    params = {**state.params, **learnt} if svi.frozen else learnt
    return SVIState(params, opt_state, state.key, state.step + 1, buffers), found.loss


def learnt_params(svi: Settings, params: Params) -> Params:
    """The parameters that are not frozen."""
    if not svi.frozen:
        return params
    frozen = chosen(svi.frozen, tuple(params))
    return {name: value for name, value in params.items() if name not in frozen}


def loss_of_learnt(
    svi: Settings, state: SVIState, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[[Params], tuple[Tensor, State]]:
    """The loss of the next step as a function of the parameters that are not frozen."""
    key, model, guide, buffers = (
        fold_in(state.key, state.step),
        svi.model,
        svi.guide,
        state.buffers,
    )

    def loss(learnt: Params) -> tuple[Tensor, State]:
        params = {**state.params, **learnt} if svi.frozen else learnt
        if svi.on_nonfinite == "raise" and not buffers:  # the usual case, on a shorter way
            return svi.loss.loss(model, guide, params, key, *args, **kwargs), buffers
        return loss_and_buffers(svi, params, key, buffers, args, kwargs)

    return loss


def loss_and_buffers(
    svi: Settings,
    params: Params,
    key: Key,
    buffers: State,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Tensor, State]:
    """The loss, and the buffers of the networks after its runs."""
    if svi.on_nonfinite != "raise":
        try:
            with unvalidated():
                return _loss(svi, params, key, buffers, args, kwargs)
        except SupportError:
            # A value outside its support has no density.
            nan = sum(
                (value.sum() * torch.nan for value in params.values()), torch.tensor(torch.nan)
            )
            return nan, buffers
    return _loss(svi, params, key, buffers, args, kwargs)


def _loss(
    svi: Settings,
    params: Params,
    key: Key,
    buffers: State,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Tensor, State]:
    if buffers and isinstance(svi.loss, LossOfParts):
        return svi.loss.loss_with_state(svi.model, svi.guide, params, key, buffers, *args, **kwargs)
    return svi.loss.loss(svi.model, svi.guide, params, key, *args, **kwargs), buffers
