"""What a chain carries along: plain tuples of tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...random import Key


class Length(NamedTuple):
    """The length of trajectories, as it is learnt.

    Attributes:
        log_length: The log of the length.
        log_average: Its weighted average.
        moment: The average of the squared gradients by it.
        updates: How many updates there were.
    """

    log_length: Tensor
    log_average: Tensor
    moment: Tensor
    updates: Tensor


class Adaptation(NamedTuple):
    """What a kernel learns in warm-up, and what it needs to learn it; per chain.

    Attributes:
        step_size: The step size of the next transition.
        inverse_mass: The inverse mass matrix: its diagonal, or all of it.
        mass_root: What momenta are scaled by: the inverse root of the diagonal, or a matrix.
        schedule: When what is adapted, see ``schedule()``.
        center: What the log step size is drawn to.
        log_average: The weighted average of the log step size.
        shortfall: The weighted average of how far acceptance was below its target.
        updates: How many updates there were since the last restart.
        mean: The mean of the positions in this window.
        spread: The sum of their squared deviations, or of the outer products.
        seen: How many positions there are in this window.
        length: What ``ChEES`` knows of the length of trajectories; else nothing.
    """

    step_size: Tensor
    inverse_mass: Tensor
    mass_root: Tensor
    schedule: Tensor
    center: Tensor
    log_average: Tensor
    shortfall: Tensor
    updates: Tensor
    mean: Tensor
    spread: Tensor
    seen: Tensor
    length: Length | tuple[()] = ()


class MCMCState(NamedTuple):
    """All that a transition needs and changes: a pytree of tensors.

    Attributes:
        position: Unconstrained values of the latent sites, by name.
        potential_energy: The negative log density there.
        gradient: Its gradient, as one vector, sites in alphabetic order.
        key: The chain's key; each transition has a part of its stream.
        transition: How many transitions there were, an int64 scalar.
        adaptation: Step size and mass matrix, and what they are learnt from.

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import NUTS
        >>> kernel = NUTS(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))
        >>> state = kernel.init(random.key(0))
        >>> sorted(state.position), state.transition
        (['z'], tensor(0))
    """

    position: dict[str, Tensor]
    potential_energy: Tensor
    gradient: Tensor
    key: Key
    transition: Tensor
    adaptation: Adaptation


class MCMCInfo(NamedTuple):
    """What a transition was like; the names are ArviZ's.

    Attributes:
        acceptance_rate: The mean acceptance probability over its leapfrogs.
        diverging: Whether its energy error was above 1,000.
        energy: The energy of position and momentum after it.
        lp: The unconstrained log density after it.
        n_steps: How many leapfrogs it took.
        step_size: How long they were.
        tree_depth: How often its trajectory was doubled.

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import HMC
        >>> kernel = HMC(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), num_steps=3)
        >>> _, info = kernel.step(kernel.init(random.key(0)))
        >>> info.n_steps, info.diverging
        (tensor(3), tensor(False))
    """

    acceptance_rate: Tensor
    diverging: Tensor
    energy: Tensor
    lp: Tensor
    n_steps: Tensor
    step_size: Tensor
    tree_depth: Tensor


class Chains(NamedTuple):
    """Many chains, first dimension, with flat positions: what the turns of a run work on.

    Attributes:
        position: (chains, D).
        potential_energy: (chains,).
        gradient: (chains, D).
        key: (chains, 2).
        transition: (chains,).
        adaptation: All of it (chains, ...).
    """

    position: Tensor
    potential_energy: Tensor
    gradient: Tensor
    key: Tensor
    transition: Tensor
    adaptation: Adaptation


class Slots(NamedTuple):
    """The draws since the slots were emptied.

    Attributes:
        position: (chains, slots, D).
        info: (chains, slots, 7), the fields of ``MCMCInfo``.
        filled: (chains,), how many slots are in use.
    """

    position: Tensor
    info: Tensor
    filled: Tensor


class Plan(NamedTuple):
    """How far chains go, and which draws are kept; scalars.

    Attributes:
        end: The transition to stop before.
        first: The transitions before this one are not kept.
        thinning: Of the others every so many is kept.
    """

    end: Tensor
    first: Tensor
    thinning: Tensor
