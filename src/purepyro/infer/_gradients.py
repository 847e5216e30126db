"""The value and the gradient of a loss, in the cheapest way that the surroundings allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .._boundary import is_transforming
from .._errors import DtypeError, describe
from .._types import Params


def value_and_gradients(loss: Callable[[Params], Tensor], params: Params) -> tuple[Tensor, Params]:
    """``loss(params)`` and its gradient by name; zero where it does not depend on a parameter.

    Inside ``torch.func`` transforms and traces the gradient is ``torch.func.grad``'s. Elsewhere it
    is autograd's, which is the same at half the time: functorch wraps every tensor anew.
    """
    if is_transforming():
        gradients, value = torch.func.grad_and_value(loss)(params)
        return value, gradients
    try:
        leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
    except (RuntimeError, AttributeError):
        _require_floating(params)
        raise
    with torch.enable_grad():
        value = loss(leaves)
    if not value.requires_grad:
        return value, {name: torch.zeros_like(param) for name, param in params.items()}
    found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return value.detach(), dict(zip(leaves, found, strict=True))


def _require_floating(params: Mapping[str, object]) -> None:
    for name, param in params.items():
        if not isinstance(param, Tensor) or not param.is_floating_point():
            raise DtypeError(
                f"The parameter {name!r} is {describe(param)}, and only floating-point tensors "
                "have gradients. Start from svi.init(key, ...), and keep its dtypes."
            )
