"""Keyed draws of counts and categories whose own code is not legal under torch.func."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as base

from ..._compat._untyped import beta_part, gamma_part, number, shape_of, tensor
from .._key import Key
from .._primitives import _discrete
from .._primitives._continuous import dirichlet, exponential
from .._source import KeySource
from .._streams import stream
from ._scalars import beta
from ._simple import gamma

Shape = tuple[int, ...]

# Trials are counted one by one up to this many, and by binomial counts beyond.
_FEW_TRIALS = 256


def multinomial(source: KeySource, d: base.Multinomial, shape: Shape) -> Tensor:
    """How often each category comes up in `total_count` trials."""
    probs, total = tensor(d, "probs"), number(d, "total_count")
    wide = probs.detach().expand((*shape, *probs.shape))
    key = source.next_key(probs.device)
    if total > _FEW_TRIALS:
        return split_count(key, torch.full_like(wide[..., 0], total), wide).to(probs.dtype)
    drawn = _discrete.categorical(key, wide, total)
    return _counted(drawn, probs.shape[-1]).to(probs.dtype)


def dirichlet_multinomial(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A multinomial whose weights are a Dirichlet vector."""
    concentration, total = tensor(d, "concentration"), tensor(d, "total_count")
    wide = concentration.detach().expand((*shape, *concentration.shape))
    probs = dirichlet(source.next_key(concentration.device), wide)
    trials = total.to(torch.float64).expand(probs.shape[:-1])
    key = source.next_key(concentration.device)
    return split_count(key, trials, probs).to(concentration.dtype)


def split_count(key: Key, trials: Tensor, probs: Tensor) -> Tensor:
    """Multinomial counts of any number of trials, category after category."""
    weights = probs.to(torch.float64)
    left = weights.flip(-1).cumsum(-1).flip(-1)
    remaining = trials.to(torch.float64)
    counts = []
    for place in range(weights.shape[-1] - 1):
        share = (weights[..., place] / left[..., place]).nan_to_num(0.0).clamp(0.0, 1.0)
        count = _discrete.binomial(stream(key, 8 + place), remaining, share)
        counts.append(count)
        remaining = remaining - count
    return torch.stack([*counts, remaining], -1)


def beta_binomial(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A binomial count whose probability is a beta number."""
    probs = beta(source, beta_part(d), shape).detach()
    return _discrete.binomial(source.next_key(probs.device), tensor(d, "total_count"), probs)


def gamma_poisson(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A Poisson count whose rate is a gamma number."""
    rate = gamma(source, gamma_part(d), shape).detach()
    return _discrete.poisson(source.next_key(rate.device), rate)


def one_hot(source: KeySource, d: base.OneHotCategorical, shape: Shape) -> Tensor:
    """A category as a vector of zeros and a one."""
    probs = tensor(d, "probs")
    drawn = _discrete.categorical(
        source.next_key(probs.device), probs.expand((*shape, *probs.shape)), 1
    )
    return _counted(drawn, probs.shape[-1]).to(probs.dtype)


def one_hot_straight_through(
    source: KeySource, d: base.OneHotCategoricalStraightThrough, shape: Shape
) -> Tensor:
    """The same, with the gradient of the probabilities (Bengio et al. 2013)."""
    probs = tensor(d, "probs")
    return one_hot(source, d, shape) + (probs - probs.detach())


def coalescent_times(source: KeySource, d: object, shape: Shape) -> Tensor:
    """Coalescence times of a tree with given leaf times, from the present back.

    Going back, lineages merge at the rate of their pairs; each waiting time uses up its exponential
    number over the stretches between the leaves that join meanwhile.
    """
    leaves = tensor(d, "leaf_times").detach()
    batch = (*shape, *shape_of(d, "batch_shape"))
    size = leaves.shape[-1]
    waits = exponential(source.next_key(leaves.device), (*batch, size - 1), leaves.dtype)
    times = leaves.to(torch.float64).expand((*batch, size)).sort(-1, descending=True).values
    rank = torch.arange(size, device=leaves.device)
    now, joined = times[..., 1:2], torch.ones_like(times[..., :1], dtype=torch.int64)
    found = []
    for merged in range(size - 1):
        now, joined = _coalesce(times, rank, waits[..., merged : merged + 1], now, joined, merged)
        found.append(now)
    return torch.cat(found[::-1], -1).to(leaves.dtype)


def _coalesce(
    times: Tensor, rank: Tensor, wait: Tensor, now: Tensor, joined: Tensor, merged: int
) -> tuple[Tensor, Tensor]:
    """The time of the next merger and the last leaf that has joined before it.

    With leaf `j` the last to have joined, `j + 1 - merged` lineages are active.
    """
    ahead = rank > joined
    # Where each later leaf joins, and how fast pairs merge on the way to it.
    start = torch.where(rank == joined + 1, now, times.roll(1, -1))
    active = (rank - merged).to(torch.float64)
    pairs = (active * (active - 1) / 2).clamp(min=0.0)
    spent = torch.where(ahead, (start - times) * pairs, 0.0).cumsum(-1)
    passed = (ahead & (wait > spent)).sum(-1, keepdim=True)
    last = joined + passed
    used = torch.where(passed > 0, spent.gather(-1, last), 0.0)
    begin = torch.where(passed > 0, times.gather(-1, last), now)
    lineages = (last + 1 - merged).to(torch.float64)
    return begin - (wait - used) / (lineages * (lineages - 1) / 2), last


def _counted(indices: Tensor, size: int) -> Tensor:
    """How often each of `size` categories is among the indices along the last dimension."""
    each = torch.arange(size, device=indices.device)
    return (indices.unsqueeze(-1) == each).sum(-2)
