"""ChEES-HMC, for many chains that learn from each other."""

from __future__ import annotations

from typing import ClassVar, ParamSpec

import attrs
import torch
from torch import Tensor

from ..._core._pickling import Carried
from ..._core._whole_numbers import as_int
from ._hmc import TrajectoryKernel
from ._kernel import between, positive
from ._mass import dot, velocity
from ._moves import Point
from ._potential import Layout
from ._state import Adaptation, Chains, Length
from ._warmup import adapted, pooled, settled

P = ParamSpec("P")

# Adam without momentum, as in the paper.
_RATE, _DECAY, _TINY = 0.025, 0.95, 1e-8
# Bits of the number of a transition that its jitter is made of.
_BITS = 24


@attrs.frozen(getstate_setstate=False)
class ChEES(TrajectoryKernel[P], Carried):
    """Hamiltonian Monte Carlo for many chains, which learn one trajectory length together.

    All chains take as many leapfrogs in a transition, so none waits and there is no tree to build:
    the sampler for 64 chains and more. Lengths are jittered by a Halton sequence; their scale
    ascends the change in the estimator of the expected square (ChEES) in warm-up, step size and
    mass matrix are pooled as well. A chain alone learns no length. The scale starts at
    ``step_size`` and changes by some 2.5 % in a transition: start near it, or warm up for hundreds.

    Attributes:
        model: Any model that ``apply`` takes.
        params: Unconstrained values of its parameters; they are fixed.
        init_strategy: Where each site starts, one of the ``init_to_...`` functions.
        step_size: The step size to start from; also the trajectory length to start from.
        adapt_step_size: Whether step size and trajectory length are adapted in warm-up.
        adapt_mass_matrix: Whether the mass matrix is adapted in warm-up.
        dense_mass: Whether the mass matrix is dense; or the blocks of sites for which it is.
        target_accept_prob: What the harmonic mean of acceptance rates over the chains is to be.
        max_num_steps: How many leapfrogs a trajectory has at most.

    Source: Hoffman, Radul and Sountsov 2021, "An Adaptive-MCMC Scheme for Setting Trajectory
    Lengths in Hamiltonian Monte Carlo".

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import MCMC, ChEES
        >>> kernel = ChEES(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))
        >>> mcmc = MCMC(kernel, num_warmup=50, num_samples=10, num_chains=64, compiled=False)
        >>> result = mcmc.run(random.key(0))
        >>> result.samples["z"].shape, bool(result.stats["acceptance_rate"].mean() > 0.5)
        (torch.Size([64, 10]), True)
    """

    learns_together: ClassVar[bool] = True

    target_accept_prob: float = attrs.field(
        default=0.651, kw_only=True, converter=float, validator=between(0.0, 1.0)
    )
    max_num_steps: int = attrs.field(
        default=1_000, kw_only=True, converter=as_int, validator=positive
    )

    def start_length(self, like: Tensor) -> Length:
        log_step = torch.zeros_like(like) + torch.tensor(self.step_size).log().to(like)
        zero = torch.zeros_like(like)
        return Length(log_step, log_step.clone(), zero, zero.clone())

    def steps(self, chains: Chains) -> Tensor:
        length = _jitter(chains) * _length_of(chains).log_length.exp()
        steps = (length / chains.adaptation.step_size).ceil()
        return steps.clamp(min=1.0, max=self.max_num_steps)

    def learnt(
        self, before: Chains, after: Chains, end: Point, done: Tensor, acceptance: Tensor
    ) -> Adaptation:
        harmonic = 1.0 / (1.0 / acceptance.clamp(min=1e-20)).mean()
        own = adapted(
            after,
            done,
            harmonic.expand_as(acceptance),
            self.target_accept_prob,
            step=self.adapt_step_size,
            mass=self.adapt_mass_matrix,
        )
        if not self.adapt_step_size:
            return own
        num_warmup = own.schedule[:, 0]
        now = done & (before.transition < num_warmup)
        last = now & (before.transition == num_warmup - 1)
        gradient = _gradient(before, end, acceptance) * _jitter(before)
        return own._replace(length=_ascended(_length_of(before), gradient, now, last))

    def settled(self, chains: Chains, layout: Layout) -> Chains:
        return settled(pooled(chains), self.blocks(layout))


def _length_of(chains: Chains) -> Length:
    length = chains.adaptation.length
    assert isinstance(length, Length)
    return length


def _jitter(chains: Chains) -> Tensor:
    """The Halton sequence of base 2, in (0, 1)."""
    bits = torch.arange(_BITS, device=chains.transition.device)
    ones = ((chains.transition.unsqueeze(-1) + 1) >> bits) & 1
    return (ones.to(chains.position.dtype) * 0.5 ** (bits + 1).to(chains.position.dtype)).sum(-1)


def _gradient(before: Chains, end: Point, acceptance: Tensor) -> Tensor:
    """The gradient of the criterion by the log of the length, over the jitter, (1,)."""
    good = end.position.isfinite().all(-1) & end.momentum.isfinite().all(-1) & (acceptance > 0)
    weight = torch.where(good, acceptance, 0.0)
    total = weight.sum().clamp(min=1e-20)
    moved = torch.where(good.unsqueeze(-1), end.position, before.position)
    start = before.position - before.position.mean(0)
    centre = (weight.unsqueeze(-1) * moved).sum(0) / total
    stop = moved - centre
    speed = velocity(before.adaptation.inverse_mass, end.momentum)
    speed = torch.where(good.unsqueeze(-1), speed, 0.0)
    change = dot(stop, stop) - dot(start, start)
    length = _length_of(before).log_length.exp()
    each = length * change * dot(stop, speed)
    return ((weight * each).sum() / total).unsqueeze(0)


def _ascended(length: Length, gradient: Tensor, now: Tensor, last: Tensor) -> Length:
    updates = length.updates + 1.0
    moment = _DECAY * length.moment + (1.0 - _DECAY) * gradient.square()
    scale = (moment / (1.0 - _DECAY**updates)).sqrt() + _TINY
    log_length = length.log_length + _RATE * gradient / scale
    weight = updates.rsqrt()
    average = (1.0 - weight) * length.log_average + weight * log_length
    return Length(
        torch.where(now, torch.where(last, average, log_length), length.log_length),
        torch.where(now, average, length.log_average),
        torch.where(now, moment, length.moment),
        torch.where(now, updates, length.updates),
    )
