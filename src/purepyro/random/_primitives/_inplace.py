"""Keyed versions of the random calls that fill a tensor: `t.normal_()` and its like."""

from __future__ import annotations

import torch
from torch import Tensor

from .._bits import _bounded
from .._bits._shape import plan
from .._bits._words import normals, uniforms
from .._source import KeySource
from . import _continuous, _discrete
from ._writing import fill

# The largest integer up to which a dtype holds all integers, for `random_`.
_INTEGRAL = {
    torch.float32: 1 << 24,
    torch.float64: 1 << 53,
    torch.float16: 1 << 11,
    torch.bfloat16: 1 << 8,
}


def normal_(
    source: KeySource, target: Tensor, mean: float = 0.0, std: float = 1.0, **_: object
) -> Tensor:
    """`Tensor.normal_`."""
    shared = plan(source.next_key(target.device), tuple(target.shape))
    found = normals(shared, target.dtype)
    if mean != 0.0 or std != 1.0:
        found = found * std + mean
    return fill(target, found)


def uniform_(source: KeySource, target: Tensor, *bounds: float, **named: float) -> Tensor:
    """`Tensor.uniform_`: (from, to)."""
    low = bounds[0] if bounds else named.get("from", 0.0)
    high = bounds[1] if len(bounds) > 1 else named.get("to", 1.0)
    shared = plan(source.next_key(target.device), tuple(target.shape))
    found = uniforms(shared, target.dtype)
    if low != 0.0 or high != 1.0:
        found = found * (high - low) + low
    return fill(target, found)


def exponential_(source: KeySource, target: Tensor, lambd: float = 1.0, **_: object) -> Tensor:
    """`Tensor.exponential_`."""
    key = source.next_key(target.device)
    found = _continuous.exponential(key, tuple(target.shape), target.dtype)
    return fill(target, found if lambd == 1.0 else found / lambd)


def cauchy_(
    source: KeySource, target: Tensor, median: float = 0.0, sigma: float = 1.0, **_: object
) -> Tensor:
    """`Tensor.cauchy_`."""
    key = source.next_key(target.device)
    found = _continuous.cauchy(key, tuple(target.shape), target.dtype)
    return fill(target, found * sigma + median)


def log_normal_(
    source: KeySource, target: Tensor, mean: float = 1.0, std: float = 2.0, **_: object
) -> Tensor:
    """`Tensor.log_normal_`."""
    shared = plan(source.next_key(target.device), tuple(target.shape))
    return fill(target, torch.exp(normals(shared, target.dtype) * std + mean))


def geometric_(source: KeySource, target: Tensor, p: float, **_: object) -> Tensor:
    """`Tensor.geometric_`."""
    found = _discrete.geometric(source.next_key(target.device), tuple(target.shape), p)
    return fill(target, found)


def bernoulli_(source: KeySource, target: Tensor, p: float | Tensor = 0.5, **_: object) -> Tensor:
    """`Tensor.bernoulli_`."""
    key = source.next_key(target.device)
    wide = torch.float64 if target.dtype is torch.float64 else torch.float32
    uniform = uniforms(plan(key, tuple(target.shape)), wide)
    return fill(target, (uniform < p).to(target.dtype))


def random_(source: KeySource, target: Tensor, *bounds: int, **named: int) -> Tensor:
    """`Tensor.random_`: (), (to) or (from, to)."""
    numbers = list(bounds)
    low = numbers.pop(0) if len(numbers) > 1 else named.get("from", 0)
    high = numbers[0] if numbers else named.get("to")
    if high is None:
        # All that the dtype holds, up to its largest value.
        info = None if target.dtype.is_floating_point else torch.iinfo(target.dtype)
        high = _INTEGRAL[target.dtype] + 1 if info is None else info.max + 1
    shared = plan(source.next_key(target.device), tuple(target.shape))
    return fill(target, _bounded.between(shared, low, high, torch.int64))
