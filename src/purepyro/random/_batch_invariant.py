"""Versions of torch's functions whose bits do not depend on where in a tensor a number stands.

torch computes pow, sigmoid and softplus with other instructions at a tensor's end than in its
middle, and groups the terms of a sum by the layout in memory; a draw under vmap would then differ
in the last bit from the same draw alone. exp, log, sqrt and a sum over contiguous rows do not, and
these are made of them. They replace torch's within a distribution's own draw only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

# torch computes these powers by multiplication, division and roots.
_EXACT = frozenset({-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0})
# Rows longer than this are summed by several threads if there is one row only.
_LONG_ROW = 1 << 15
# A product of matrices with more terms than this is left to torch, equal to rounding only.
_LARGE_PRODUCT = 1 << 24


def row_sum(value: Tensor, *, keepdim: bool = False) -> Tensor:
    """The sum over the last dimension."""
    if value.shape[-1] >= _LONG_ROW:
        found = value.cumsum(-1)[..., -1:]
        return found if keepdim else found.squeeze(-1)
    return value.contiguous().sum(-1, keepdim=keepdim)


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """`torch.matmul`."""
    if left.dim() == 1:
        return matmul(left.unsqueeze(0), right).squeeze(-1 if right.dim() == 1 else -2)
    if right.dim() == 1:
        return matvec(left, right)
    terms = max(left.numel(), right.numel()) * min(left.shape[-2], right.shape[-1])
    if terms > _LARGE_PRODUCT:
        return torch.matmul(left, right)
    return row_sum(left.unsqueeze(-2) * right.mT.unsqueeze(-3))


def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
    """The product of matrices and vectors, of any batch shapes that broadcast."""
    return row_sum(matrix * vector.unsqueeze(-2))


def sigmoid(input: Tensor) -> Tensor:
    """`torch.sigmoid`."""
    positive = input >= 0
    small = torch.exp(torch.where(positive, -input, input))
    return torch.where(positive, 1.0, small) / (1.0 + small)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """`torch.nn.functional.softplus`."""
    scaled = input * beta
    small = torch.exp(torch.where(scaled >= 0, -scaled, scaled))
    return (torch.where(scaled >= 0, scaled, 0.0) + torch.log1p(small)) / beta


def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """`torch.logsumexp`, over the last dimension; others are left to torch."""
    if dim not in (-1, (-1,), [-1]):
        return torch.logsumexp(input, dim, keepdim)
    largest = input.detach().amax(-1, keepdim=True)
    shift = torch.where(torch.isfinite(largest), largest, 0.0)
    found = torch.log(row_sum(torch.exp(input - shift), keepdim=True)) + shift
    return found if keepdim else found.squeeze(-1)


def softmax(input: Tensor, dim: int | None = None, *args: object, **named: object) -> Tensor:
    """`torch.nn.functional.softmax`, over the last dimension; others are left to torch."""
    if dim != -1 or named.get("dtype") is not None:
        return torch.softmax(input, -1 if dim is None else dim)
    powers = torch.exp(input - input.detach().amax(-1, keepdim=True))
    return powers / row_sum(powers, keepdim=True)


def power(input: float | Tensor, exponent: float | Tensor) -> Tensor:
    """`torch.pow`, in float64 inside for numbers of fewer bits."""
    base = torch.as_tensor(input)
    if isinstance(exponent, int | float) and exponent in _EXACT:
        return torch.pow(base, exponent)
    if not (torch.is_floating_point(base) or isinstance(exponent, Tensor)):
        return torch.pow(base, exponent)
    kind = torch.result_type(base, exponent)
    wide, index = base.to(torch.float64), torch.as_tensor(exponent).to(torch.float64)
    positive = wide > 0
    found = torch.exp(index * torch.log(torch.where(positive, wide, 1.0)))
    other = torch.pow(torch.where(positive, 1.0, wide), index)
    return torch.where(positive, found, other).to(kind)


def _reflected(input: Tensor, base: float | Tensor) -> Tensor:
    return power(base, input)


STEADY: Mapping[object, Callable[..., Tensor]] = MappingProxyType(
    {
        torch.sigmoid: sigmoid,
        Tensor.sigmoid: sigmoid,
        torch.special.expit: sigmoid,
        torch.nn.functional.softplus: softplus,
        torch.nn.functional.softmax: softmax,
        torch.softmax: softmax,
        Tensor.softmax: softmax,
        torch.logsumexp: logsumexp,
        Tensor.logsumexp: logsumexp,
        torch.pow: power,
        Tensor.pow: power,
        Tensor.__pow__: power,
        Tensor.__rpow__: _reflected,
        torch.matmul: matmul,
        Tensor.matmul: matmul,
        Tensor.__matmul__: matmul,
    }
)
