"""Keyed draws of the distributions that a model draws most: no function mode, few operations.

Each gives the same bits as its class would with its random calls redirected. All functions here and
in the sister files take the source of keys, the distribution and the sample shape, and return a
draw that is reparameterised where the distribution is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as base

from ..._compat._untyped import tensor
from .._bits._shape import plan
from .._bits._words import normals, uniforms
from .._primitives._gamma import standard_gamma
from .._source import KeySource


def normal(source: KeySource, d: base.Normal, shape: tuple[int, ...]) -> Tensor:
    """`loc + z * scale`."""
    loc, scale = tensor(d, "loc"), tensor(d, "scale")
    key = source.next_key(loc.device)
    return loc + normals(plan(key, (*shape, *d.batch_shape)), loc.dtype) * scale


def half_normal(source: KeySource, d: base.HalfNormal, shape: tuple[int, ...]) -> Tensor:
    """`|z * scale|`."""
    scale = tensor(d, "scale")
    key = source.next_key(scale.device)
    return torch.abs(normals(plan(key, (*shape, *d.batch_shape)), scale.dtype) * scale)


def log_normal(source: KeySource, d: base.LogNormal, shape: tuple[int, ...]) -> Tensor:
    """`exp(loc + z * scale)`."""
    loc, scale = tensor(d, "loc"), tensor(d, "scale")
    key = source.next_key(loc.device)
    return torch.exp(loc + normals(plan(key, (*shape, *d.batch_shape)), loc.dtype) * scale)


def uniform(source: KeySource, d: base.Uniform, shape: tuple[int, ...]) -> Tensor:
    """`low + u * (high - low)`."""
    low, high = tensor(d, "low"), tensor(d, "high")
    key = source.next_key(low.device)
    return low + uniforms(plan(key, (*shape, *d.batch_shape)), low.dtype) * (high - low)


def gamma(source: KeySource, d: base.Gamma, shape: tuple[int, ...]) -> Tensor:
    """A standard gamma number over the rate; above 0 as torch's are."""
    concentration, rate = tensor(d, "concentration"), tensor(d, "rate")
    key = source.next_key(concentration.device)
    number = standard_gamma(key, concentration.expand((*shape, *d.batch_shape)))
    return above_zero(number / rate)


def above_zero(value: Tensor) -> Tensor:
    """`value` raised to the least normal number of its dtype, with the gradient of `value`."""
    raised = value.detach().clamp(min=torch.finfo(value.dtype).tiny)
    return value + (raised - value.detach())
