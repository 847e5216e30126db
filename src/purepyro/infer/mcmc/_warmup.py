"""Warm-up after Stan's schedule: dual averaging of the step size, variances by windows."""

from __future__ import annotations

import torch
from torch import Tensor

from ._mass import is_dense, root_of
from ._state import Adaptation, Chains

# Hoffman and Gelman 2014, and Stan's defaults.
_DELAY, _DECAY, _SHRINKAGE = 10.0, 0.75, 0.05
_START, _WINDOW, _END = 75, 25, 50
# Windows double, so that these are enough for 10^8 transitions.
_WINDOWS = 24


def schedule(num_warmup: int) -> Tensor:
    """When what is adapted, as int64.

    First the length of warm-up, then the start of the first window and the end of the last one,
    then the ends of all windows, padded by -1. A fast interval comes before the windows and one
    after them, in which the step size alone is adapted; each window is twice as long as the one
    before it.

    >>> schedule(1000)[:9].tolist()
    [1000, 75, 950, 100, 150, 250, 450, 950, -1]
    """
    ends: list[int] = []
    start, window, end = _START, _WINDOW, _END
    if num_warmup < 20:
        start = end = 0
    else:
        if start + window + end > num_warmup:
            start, end = int(0.15 * num_warmup), int(0.1 * num_warmup)
            window = num_warmup - start - end
        at, last = start, num_warmup - end
        while at < last:
            # One that is followed by too short a rest takes it.
            at = last if at + 3 * window > last else at + window
            window *= 2
            ends.append(at)
    bounds = [num_warmup, start, ends[-1] if ends else start]
    return torch.tensor([*bounds, *ends, *[-1] * (_WINDOWS - len(ends))], dtype=torch.int64)


def adapted(
    chains: Chains, done: Tensor, acceptance: Tensor, target: float, *, step: bool, mass: bool
) -> Adaptation:
    """The adaptation after a transition that is ``done``, (chains,), and led to the position.

    Args:
        chains: The chains; their transition is the number of the one that is done.
        done: Which chains have done one.
        acceptance: Its acceptance rate.
        target: What that should be.
        step: Whether the step size is adapted.
        mass: Whether the mass matrix is.
    """
    own = chains.adaptation
    length, start, end = own.schedule[:, 0], own.schedule[:, 1], own.schedule[:, 2]
    warms = done & (chains.transition < length)
    if step:
        own = _step_size(own, warms, acceptance, target, warms & (chains.transition == length - 1))
    if mass:
        inside = warms & (chains.transition >= start) & (chains.transition < end)
        own = _window(own, inside, chains.position)
    return own


def _step_size(
    own: Adaptation, now: Tensor, acceptance: Tensor, target: float, last: Tensor
) -> Adaptation:
    updates = own.updates + 1.0
    share = 1.0 / (updates + _DELAY)
    shortfall = (1.0 - share) * own.shortfall + share * (target - acceptance)
    log_step = own.center - updates.sqrt() / _SHRINKAGE * shortfall
    weight = updates.pow(-_DECAY)
    average = weight * log_step + (1.0 - weight) * own.log_average
    step_size = torch.where(last, average, log_step).exp()
    return own._replace(
        step_size=torch.where(now, step_size, own.step_size),
        log_average=torch.where(now, average, own.log_average),
        shortfall=torch.where(now, shortfall, own.shortfall),
        updates=torch.where(now, updates, own.updates),
    )


def _window(own: Adaptation, now: Tensor, position: Tensor) -> Adaptation:
    """Welford's algorithm."""
    seen = own.seen + now.to(own.seen.dtype)
    before = position - own.mean
    mean = own.mean + before / seen.clamp(min=1.0).unsqueeze(-1)
    after = position - mean
    wide = now.unsqueeze(-1)
    if is_dense(own.spread, position):
        product = before.unsqueeze(-1) * after.unsqueeze(-2)
        spread = torch.where(wide.unsqueeze(-1), own.spread + product, own.spread)
    else:
        spread = torch.where(wide, own.spread + before * after, own.spread)
    return own._replace(mean=torch.where(wide, mean, own.mean), spread=spread, seen=seen)


def waits(chains: Chains) -> Tensor:
    """Which chains are at the end of a window, whose mass matrix is not yet learnt from it."""
    own = chains.adaptation
    ends = own.schedule[:, 3:] == chains.transition.unsqueeze(-1)
    return ends.any(-1) & (own.seen > 0)


def pooled(chains: Chains) -> Chains:
    """The chains, each with the positions that all of them have seen in the window."""
    own = chains.adaptation
    count = own.seen.sum()
    mean = own.mean.mean(0)
    apart = own.mean - mean
    between = apart.unsqueeze(-1) * apart.unsqueeze(-2)
    if not is_dense(own.spread, chains.position):
        between = apart.square()
    weight = own.seen.reshape(-1, *(1 for _ in own.spread.shape[1:]))
    spread = (own.spread + weight * between).sum(0)
    ready = waits(chains)
    wide = ready.reshape(weight.shape)
    return chains._replace(
        adaptation=own._replace(
            seen=torch.where(ready, count, own.seen),
            spread=torch.where(wide, spread, own.spread),
        )
    )


def settled(chains: Chains, blocks: Tensor | None) -> Chains:
    """The chains with what their windows, as far as they are at an end, tell of the mass matrix.

    Args:
        chains: The chains.
        blocks: Where the matrix may differ from zero; ``None``: it is diagonal.
    """
    own, now = chains.adaptation, waits(chains)
    wide = now.reshape(-1, *(1 for _ in own.inverse_mass.shape[1:]))
    count = own.seen.reshape(wide.shape)
    # Stan's shrinkage towards a small multiple of the identity.
    share = count / (count + 5.0)
    identity = torch.ones_like(own.mean[0]) if blocks is None else _eye(own.inverse_mass[0])
    variance = own.spread / (count - 1.0).clamp(min=1.0)
    if blocks is not None:
        variance = variance * blocks.to(variance)
    found = share * variance + (1.0 - share) * 1e-3 * identity
    inverse_mass = torch.where(wide, found, own.inverse_mass)
    root = root_of(inverse_mass, dense=blocks is not None)
    zero = torch.zeros_like(own.seen)
    return chains._replace(
        adaptation=own._replace(
            inverse_mass=inverse_mass,
            mass_root=torch.where(wide, root, own.mass_root),
            center=torch.where(now, (10.0 * own.step_size).log(), own.center),
            log_average=torch.where(now, zero, own.log_average),
            shortfall=torch.where(now, zero, own.shortfall),
            updates=torch.where(now, zero, own.updates),
            mean=torch.where(now.unsqueeze(-1), torch.zeros_like(own.mean), own.mean),
            spread=torch.where(wide, torch.zeros_like(own.spread), own.spread),
            seen=torch.where(now, zero, own.seen),
        )
    )


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
