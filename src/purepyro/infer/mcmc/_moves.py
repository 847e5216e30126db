"""What the turns of all kernels share: leapfrogs, noise, and the end of a transition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..._compat._transforms import plain
from ..._core._trees import mapped
from ...random import Key, normal, uniform
from ._mass import kinetic, scaled, velocity
from ._state import Chains, MCMCInfo, Plan, Slots
from ._warmup import waits

T = TypeVar("T")

Gradient: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From positions (chains, D) to their potential energies and the gradients of these."""

# From such an error of the energy on a trajectory counts as divergent, as in Stan.
_DIVERGENT = 1_000.0


class Point(NamedTuple):
    """A point of phase space, for each chain.

    Attributes:
        position: (chains, D).
        momentum: (chains, D).
        gradient: Of the potential energy, (chains, D).
    """

    position: Tensor
    momentum: Tensor
    gradient: Tensor


class Walk(NamedTuple, Generic[T]):
    """Chains on their way, maybe in the middle of a transition.

    Attributes:
        chains: The chains; their position is the one that the transition would end with.
        path: Where each is on its trajectory.
        slots: The draws that were not taken out yet.
        plan: How far they go.
    """

    chains: Chains
    path: T
    slots: Slots
    plan: Plan


def choose(condition: Tensor, new: T, old: T) -> T:
    """Leaf by leaf ``new`` for the chains for which the condition (chains,) holds."""

    def of_leaf(new: Tensor, old: Tensor) -> Tensor:
        wide = condition.reshape(-1, *(1 for _ in new.shape[1:]))
        return torch.where(wide, new, old)

    return mapped(of_leaf, new, old)


def goes(walk: Walk[T]) -> Tensor:
    """Which chains take part in a turn: those with a way to go and a slot for what they draw."""
    chains, slots = walk.chains, walk.slots
    room = slots.filled < slots.info.shape[1]
    return (chains.transition < walk.plan.end) & room & ~waits(chains)


def momenta(chains: Chains, fresh: Tensor) -> Tensor:
    """The momenta that the transition under way begins with.

    Args:
        chains: The chains.
        fresh: Which of them are at the beginning; where values can be read and none is, nothing is
            drawn.
    """
    seen = plain(fresh)
    if seen is not None and not bool(seen.any()):
        return torch.zeros_like(chains.position)
    key = _key_at(chains, _MOMENTA)
    noise = normal(key, *chains.position.shape, dtype=chains.position.dtype)
    return scaled(chains.adaptation.mass_root, noise)


def uniforms(chains: Chains, leaf: Tensor, count: int) -> tuple[Tensor, ...]:
    """Uniform values of a leapfrog of the transition under way."""
    key = _key_at(chains, leaf * _BLOCKS)
    found = uniform(key, len(leaf), count, dtype=chains.position.dtype)
    return found.unbind(-1)


# A transition has 2^24 blocks of its chain's stream: two for each leapfrog, of which it takes less
# than 2^22, and from the middle on those of its momenta.
_TRANSITION, _MOMENTA, _BLOCKS = 1 << 24, 1 << 23, 2
LONGEST = 1 << 22


def _key_at(chains: Chains, block: Tensor | int) -> Key:
    """The chain's key, moved to a block of the transition under way."""
    seed, offset = chains.key.unbind(-1)
    offset = offset + chains.transition * _TRANSITION + block
    return Key(torch.stack([seed, offset.to(offset.dtype)], -1))


def leapfrog(
    at: Point, step: Tensor, inverse_mass: Tensor, gradient_of: Gradient
) -> tuple[Point, Tensor]:
    """One leapfrog with signed step sizes (chains,), and the potential energy where it ends."""
    step = step.unsqueeze(-1)
    half = at.momentum - 0.5 * step * at.gradient
    position = at.position + step * velocity(inverse_mass, half)
    energy, gradient = gradient_of(position)
    return Point(position, half - 0.5 * step * gradient, gradient), energy


def energy_of(chains: Chains, momentum: Tensor, potential_energy: Tensor) -> Tensor:
    """The energy; infinite where it is not a number."""
    energy = potential_energy + kinetic(chains.adaptation.inverse_mass, momentum)
    return torch.where(energy.isnan(), torch.inf, energy)


def is_divergent(error: Tensor) -> Tensor:
    """Whether an error of the energy is so large that the trajectory has left its path."""
    return ~(error <= _DIVERGENT)


def kept(slots: Slots, plan: Plan, chains: Chains, info: MCMCInfo, done: Tensor) -> Slots:
    """The slots with the draws of the chains that have ``done`` a transition."""
    number = chains.transition - plan.first
    keep = done & (number >= 0) & ((number + 1) % plan.thinning == 0)
    index = torch.arange(slots.info.shape[1], device=keep.device)
    here = (keep.unsqueeze(-1) & (slots.filled.unsqueeze(-1) == index)).unsqueeze(-1)
    row = torch.stack([each.to(slots.info.dtype) for each in info], -1)
    return Slots(
        torch.where(here, chains.position.unsqueeze(-2), slots.position),
        torch.where(here, row.unsqueeze(-2), slots.info),
        slots.filled + keep.to(slots.filled.dtype),
    )
