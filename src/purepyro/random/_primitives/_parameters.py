"""Keyed versions of the random calls whose argument holds the parameters of each value."""

from __future__ import annotations

import torch
from torch import Tensor

from .._source import KeySource
from . import _continuous, _discrete, _gamma
from ._factories import finished


def bernoulli(
    source: KeySource,
    input: Tensor,
    p: float | None = None,
    *,
    out: Tensor | None = None,
    **_: object,
) -> Tensor:
    """`torch.bernoulli`."""
    probs = input if p is None else torch.full_like(input, p)
    found = _discrete.bernoulli(source.next_key(input.device), probs, input.dtype)
    return finished(found, out)


def multinomial(
    source: KeySource,
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    out: Tensor | None = None,
    **_: object,
) -> Tensor:
    """`torch.multinomial`."""
    draw = _discrete.categorical if replacement else _discrete.subset
    return finished(draw(source.next_key(input.device), input, num_samples), out)


def poisson(source: KeySource, input: Tensor, **_: object) -> Tensor:
    """`torch.poisson`."""
    return _discrete.poisson(source.next_key(input.device), input)


def binomial(source: KeySource, count: Tensor, prob: Tensor, **_: object) -> Tensor:
    """`torch.binomial`."""
    return _discrete.binomial(source.next_key(prob.device), count, prob)


def standard_gamma(source: KeySource, input: Tensor, **_: object) -> Tensor:
    """`torch._standard_gamma`."""
    return _gamma.standard_gamma(source.next_key(input.device), input)


def sample_dirichlet(source: KeySource, input: Tensor, **_: object) -> Tensor:
    """`torch._sample_dirichlet`."""
    return _continuous.dirichlet(source.next_key(input.device), input)
