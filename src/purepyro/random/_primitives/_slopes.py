"""Derivatives of gamma and Dirichlet numbers in their parameters, with a rule for vmap.

torch has the derivatives but no batching rule for them: it warns, loops over the lanes, and writes
the loop out in a traced graph. They are elementwise, so a batch is one more dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd import Function

from ..._compat._untyped import call, part


class _Info(Protocol):
    batch_size: int


class _Elementwise(Function):
    """An elementwise function of torch, of tensors of one shape, that has no derivative."""

    @staticmethod
    def forward(function: object, *tensors: Tensor) -> Tensor:
        return call(function, *tensors)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[object, ...], output: Tensor) -> None:
        """Nothing is kept: there is no way back."""

    @staticmethod
    def backward(ctx: object, *grad_outputs: Tensor) -> None:
        raise NotImplementedError(
            "A second derivative of a gamma or Dirichlet number in its parameters is asked for. "
            "torch has the first one only. Take a distribution with a formula, such as LogNormal."
        )

    @staticmethod
    def vmap(info: _Info, in_dims: tuple[int | None, ...], *args: object) -> tuple[Tensor, int]:
        function, *tensors = args
        moved = (
            one.expand(info.batch_size, *one.shape) if dim is None else one.movedim(dim, 0)
            for one, dim in zip(cast(list[Tensor], tensors), in_dims[1:], strict=True)
        )
        return _apply(function, *moved), 0


# torch leaves `Function.apply` without a type.
_apply = cast(Callable[..., Tensor], part(_Elementwise, "apply"))


def gamma_slope(concentration: Tensor, value: Tensor) -> Tensor:
    """The derivative of each gamma number in its shape parameter."""
    return _apply(part(torch, "_standard_gamma_grad"), concentration, value)


def dirichlet_slope(concentration: Tensor, value: Tensor) -> Tensor:
    """The derivative of each coordinate in its own concentration, the others rescaled."""
    total = concentration.sum(-1, keepdim=True).expand_as(concentration)
    return _apply(part(torch, "_dirichlet_grad"), value, concentration, total)
