"""Implicit gradients of gamma and Dirichlet numbers in their parameters.

torch has the derivatives (Jankowiak & Obermeyer 2018) below functions that vmap cannot see through.
Here the same derivatives are attached to numbers that were drawn otherwise, by functions with
rules for vmap and for forward mode.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor
from torch.autograd import Function

from ..._compat._untyped import part
from ._slopes import dirichlet_slope, gamma_slope


class _Context(Protocol):
    saved_tensors: tuple[Tensor, Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...

    def save_for_forward(self, *tensors: Tensor) -> None: ...


class _Apply(Protocol):
    def __call__(self, parameter: Tensor, value: Tensor) -> Tensor: ...


class _Gamma(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: _Context, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0] * gamma_slope(*ctx.saved_tensors), None

    @staticmethod
    def jvp(ctx: _Context, *grad_inputs: Tensor | None) -> Tensor:
        tangent, slope = grad_inputs[0], gamma_slope(*ctx.saved_tensors)
        return torch.zeros_like(slope) if tangent is None else tangent * slope


class _Dirichlet(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: _Context, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        outer, value = grad_outputs[0], ctx.saved_tensors[1]
        slope = dirichlet_slope(*ctx.saved_tensors)
        return slope * (outer - (value * outer).sum(-1, keepdim=True)), None

    @staticmethod
    def jvp(ctx: _Context, *grad_inputs: Tensor | None) -> Tensor:
        tangent, value = grad_inputs[0], ctx.saved_tensors[1]
        if tangent is None:
            return torch.zeros_like(value)
        moved = dirichlet_slope(*ctx.saved_tensors) * tangent
        return moved - value * moved.sum(-1, keepdim=True)


# torch leaves `Function.apply` without a type.
_apply_gamma = cast(_Apply, part(_Gamma, "apply"))
_apply_dirichlet = cast(_Apply, part(_Dirichlet, "apply"))


def attach_gamma(concentration: Tensor, value: Tensor) -> Tensor:
    """`value`, gamma numbers of shape `concentration`, with their gradient."""
    return _apply_gamma(concentration, value)


def attach_dirichlet(concentration: Tensor, value: Tensor) -> Tensor:
    """`value`, Dirichlet vectors along the last dimension, with their gradient."""
    return _apply_dirichlet(concentration, value)
