"""Keyed versions of torch's discrete random primitives.

Counts are drawn in float64 whatever the dtype: their probabilities are differences of large
logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._bits._shape import broadcast, plan
from .._bits._words import open_uniforms, uniforms
from .._derive import stream
from .._key import Key
from ._gamma import first_accepted

PROPOSALS = 24
"""Proposals of the rejection samplers for counts of mean 10 and more. The least likely to be
accepted, with probability 0.705, are those for binomial counts of 20 trials at 1/2 (Poisson: 0.75
at mean 10); both rise to 0.88 with the mean. So 24 fail together with probability 2e-13 at most.
"""

_SMALL_MEAN = 10.0
_TABLE = 72
"""Length of the table for means below 10: P(X >= 72) < 1e-37 for a Poisson variable of mean 10."""


def bernoulli(key: Key, probs: Tensor, dtype: torch.dtype) -> Tensor:
    """1 with the given probabilities, else 0."""
    return (uniforms(plan(key, tuple(probs.shape)), probs.dtype) < probs.detach()).to(dtype)


def geometric(key: Key, shape: tuple[int, ...], p: float | Tensor) -> Tensor:
    """The number of the first success in trials of probability `p`: 1, 2, ..., as float64."""
    log_uniform = torch.log(open_uniforms(plan(key, shape), torch.float64))
    failure = torch.as_tensor(p, dtype=torch.float64, device=key.device)
    return torch.ceil(log_uniform / torch.log1p(-failure)).clamp(min=1.0)


def poisson(key: Key, rate: Tensor) -> Tensor:
    """Poisson counts, one for each rate."""
    mean = rate.detach().to(torch.float64)
    small = mean < _SMALL_MEAN
    counts = torch.where(small, _poisson_small(key, mean), _poisson_large(key, mean))
    return torch.where(torch.isnan(mean), mean, counts).to(rate.dtype)


def binomial(key: Key, count: Tensor, probs: Tensor) -> Tensor:
    """Binomial counts, one for each pair of `count` and `probs` broadcast."""
    shape = broadcast(count.shape, probs.shape)
    trials = count.detach().to(torch.float64).expand(shape)
    success = probs.detach().to(torch.float64).expand(shape)
    flipped = success > 0.5
    rare = torch.where(flipped, 1.0 - success, success)
    small = trials * rare < _SMALL_MEAN
    drawn = torch.where(
        small, _binomial_small(key, trials, rare), _binomial_large(key, trials, rare)
    )
    counts = torch.where(flipped, trials - drawn, drawn)
    return torch.where(torch.isnan(success), success, counts).to(probs.dtype)


def categorical(key: Key, probs: Tensor, number: int) -> Tensor:
    """`number` indices with replacement for each row of weights, (..., number), by inversion."""
    cumulative = probs.detach().to(torch.float64).cumsum(-1)
    total = cumulative[..., -1:]
    drawn = uniforms(plan(key, (*probs.shape[:-1], number)), torch.float64) * total
    # Rounded up to the total, a value would lie beyond the last category of positive weight.
    below = torch.minimum(drawn, total * (1.0 - 2.0**-53))
    return (below.unsqueeze(-1) >= cumulative.unsqueeze(-2)).sum(-1)


def subset(key: Key, probs: Tensor, number: int) -> Tensor:
    """`number` different indices for each row of weights, (..., number).

    The order of independent exponential waiting times (Efraimidis & Spirakis 2006).
    """
    weights = probs.detach().to(torch.float64)
    waits = -torch.log(open_uniforms(plan(key, tuple(probs.shape)), torch.float64))
    order = torch.argsort(waits / weights, dim=-1, stable=True)
    return order[..., :number]


def _poisson_small(key: Key, mean: Tensor) -> Tensor:
    """By inversion: how many entries of a table of the distribution function a uniform exceeds."""
    rate = torch.where(mean < _SMALL_MEAN, mean, 1.0).unsqueeze(-1)
    k = torch.arange(_TABLE, dtype=torch.float64, device=mean.device)
    logs = torch.xlogy(k, rate) - rate - torch.lgamma(k + 1)
    return _inverted(stream(key, 0), mean, torch.exp(logs))


def _binomial_small(key: Key, trials: Tensor, rare: Tensor) -> Tensor:
    n, p = trials.unsqueeze(-1), rare.unsqueeze(-1)
    k = torch.arange(_TABLE, dtype=torch.float64, device=trials.device)
    left = (n - k).clamp(min=0.0)
    logs = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(left + 1)
    logs = logs + torch.xlogy(k, p) + torch.special.xlog1py(left, -p)
    return _inverted(stream(key, 0), trials, torch.where(k <= n, torch.exp(logs), 0.0))


def _inverted(key: Key, like: Tensor, probs: Tensor) -> Tensor:
    uniform = uniforms(plan(key, tuple(like.shape)), torch.float64)
    above = uniform.unsqueeze(-1) >= probs.cumsum(-1)
    # The last entry is 1 but for rounding.
    return above[..., :-1].sum(-1).to(torch.float64)


def _poisson_large(key: Key, mean: Tensor) -> Tensor:
    """By rejection, with a fixed number of proposals side by side.

    Hörmann (1993), "The transformed rejection method for generating Poisson random variables",
    algorithm PTRS.
    """
    rate = torch.where(mean >= _SMALL_MEAN, mean, _SMALL_MEAN).unsqueeze(-1)
    b = 0.931 + 2.53 * torch.sqrt(rate)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)
    u, v, us = _transformed(key, mean)
    k = torch.floor((2 * a / us + b) * u + rate + 0.43)
    left = torch.log(v * inverse_alpha / (a / (us * us) + b))
    right = torch.xlogy(k, rate) - rate - torch.lgamma(k.clamp(min=0.0) + 1)
    squeezed = (us >= 0.07) & (v <= v_r)
    valid = (k >= 0) & ~((us < 0.013) & (v > us))
    return first_accepted(k, squeezed | (valid & (left <= right)))


def _binomial_large(key: Key, trials: Tensor, rare: Tensor) -> Tensor:
    """Hörmann (1993), "The generation of binomial random variates", algorithm BTRS, likewise."""
    use = trials * rare >= _SMALL_MEAN
    n = torch.where(use, trials, 40.0).unsqueeze(-1)
    p = torch.where(use, rare, 0.5).unsqueeze(-1)
    spread = torch.sqrt(n * p * (1 - p))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    c = n * p + 0.5
    v_r = 0.92 - 4.2 / b
    alpha = (2.83 + 5.1 / b) * spread
    mode = torch.floor((n + 1) * p)
    u, v, us = _transformed(key, trials)
    k = torch.floor((2 * a / us + b) * u + c)
    inside = (k >= 0) & (k <= n)
    kept = torch.where(inside, k, mode)
    left = torch.log(v * alpha / (a / (us * us) + b))
    log_odds = torch.log(p) - torch.log1p(-p)
    right = (
        torch.lgamma(mode + 1)
        + torch.lgamma(n - mode + 1)
        - torch.lgamma(kept + 1)
        - torch.lgamma(n - kept + 1)
        + (kept - mode) * log_odds
    )
    squeezed = (us >= 0.07) & (v <= v_r)
    return first_accepted(kept, inside & (squeezed | (left <= right)))


def _transformed(key: Key, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A uniform in (-1/2, 1/2), one in (0, 1], and the first one's distance from its ends."""
    shape = (*like.shape, PROPOSALS)
    u = open_uniforms(plan(stream(key, 1), shape), torch.float64) - 0.5
    v = open_uniforms(plan(stream(key, 2), shape), torch.float64)
    return u, v, 0.5 - torch.abs(u)
