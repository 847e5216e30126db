"""The value and the gradient of a loss, in the cheapest way that the surroundings allow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._boundary import is_transforming
from .._types import Params


def value_and_gradients(loss: Callable[[Params], Tensor], params: Params) -> tuple[Tensor, Params]:
    """``loss(params)`` and its gradient by name; zero where it does not depend on a parameter.

    Inside ``torch.func`` transforms and traces the gradient is ``torch.func.grad``'s. Elsewhere it
    is autograd's, which is the same at half the time: functorch wraps every tensor anew.
    """
    if is_transforming():
        gradients, value = torch.func.grad_and_value(loss)(params)
        return value, gradients
    leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
    with torch.enable_grad():
        value = loss(leaves)
    if not value.requires_grad:
        return value, {name: torch.zeros_like(param) for name, param in params.items()}
    found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return value.detach(), dict(zip(leaves, found, strict=True))
