"""Gradients of a loss by autograd, by the names of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..._core._types import Params, State
from ..._errors import DtypeError, describe
from ..._networks._substitution import Substitution


def without_gradient(loss: Callable[[Params], tuple[Tensor, State]], params: Params) -> list[str]:
    """The names of the parameters that a finite loss, as it was computed, does not depend on.

    Raises:
        MissingNameError: if it depends on the parameter of a network that is not among them.
    """
    leaves = leaves_of(params)
    with torch.enable_grad():
        value, _ = loss(leaves)
    Substitution().require_in_params(value)
    if not bool(value.isfinite()):
        return []
    gradients = gradients_at(value, leaves)
    return [name for name, gradient in gradients.items() if gradient is None]


def gradients_at(value: Tensor, leaves: Params) -> dict[str, Tensor | None]:
    """The gradient of ``value`` by each leaf; ``None`` where it does not depend on it."""
    if not leaves or not value.requires_grad:
        return dict.fromkeys(leaves)
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def leaves_of(params: Params) -> Params:
    """The parameters as leaves of a graph of autograd."""
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
