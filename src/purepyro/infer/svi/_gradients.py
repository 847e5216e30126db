"""The value and the gradient of a loss, in the cheapest way that the surroundings allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..._compat._pyro import is_transforming
from ..._core._types import Params, State
from ..._errors import DtypeError, describe
from ..._networks._substitution import Substitution


def value_and_gradients(
    loss: Callable[[Params], tuple[Tensor, State]], params: Params
) -> tuple[Tensor, Params, State]:
    """The loss at ``params``, its gradient by name, and the state that comes out beside it.

    The gradient is zero where the loss does not depend on a parameter. Inside ``torch.func``
    transforms and traces it is ``torch.func.grad``'s. Elsewhere it is autograd's, which is the same
    at half the time: functorch wraps every tensor anew.
    """
    if not params:
        value, state = loss(params)
        return value.detach(), {}, state
    if is_transforming():
        gradients, (value, state) = torch.func.grad_and_value(loss, has_aux=True)(params)
        return value, gradients, state
    value, gradients, state = _by_autograd(loss, params)
    return (
        value,
        {n: torch.zeros_like(params[n]) if g is None else g for n, g in gradients.items()},
        state,
    )


def without_gradient(loss: Callable[[Params], tuple[Tensor, State]], params: Params) -> list[str]:
    """The names of the parameters that a finite loss, as it was computed, does not depend on.

    Raises:
        MissingNameError: if it depends on the parameter of a network that is not among them.
    """
    leaves = _leaves(params)
    with torch.enable_grad():
        value, _ = loss(leaves)
    Substitution().require_in_params(value)
    if not bool(value.isfinite()):
        return []
    gradients = _gradients(value, leaves)
    return [name for name, gradient in gradients.items() if gradient is None]


def _by_autograd(
    loss: Callable[[Params], tuple[Tensor, State]], params: Params
) -> tuple[Tensor, dict[str, Tensor | None], State]:
    leaves = _leaves(params)
    with torch.enable_grad():
        value, state = loss(leaves)
    return value.detach(), _gradients(value, leaves), state


def _gradients(value: Tensor, leaves: Params) -> dict[str, Tensor | None]:
    if not leaves or not value.requires_grad:
        return dict.fromkeys(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def _leaves(params: Params) -> Params:
    try:
        return {name: param.detach().requires_grad_() for name, param in params.items()}
    except (RuntimeError, AttributeError):
        _require_floating(params)
        raise


def _require_floating(params: Mapping[str, object]) -> None:
    for name, param in params.items():
        if not isinstance(param, Tensor) or not param.is_floating_point():
            raise DtypeError(
                f"The parameter {name!r} is {describe(param)}, and only floating-point tensors "
                "have gradients. Start from svi.init(key, ...), and keep its dtypes."
            )
