"""Hamiltonian Monte Carlo with trajectories of a given length."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple, ParamSpec

import attrs
import torch
from torch import Tensor

from ..._core._pickling import Carried
from ..._core._whole_numbers import as_int_or_none
from ..._errors import DeclarationError
from ._kernel import GradientKernel, positive
from ._moves import (
    LONGEST,
    Gradient,
    Point,
    Walk,
    choose,
    energy_of,
    is_divergent,
    kept,
    leapfrog,
    momenta,
    uniforms,
)
from ._state import Adaptation, Chains, MCMCInfo
from ._warmup import adapted

P = ParamSpec("P")


class Trajectory(NamedTuple):
    """A trajectory on its way.

    Attributes:
        leaf: How many leapfrogs there were.
        point: Where it is.
        start_energy: The energy at its start.
    """

    leaf: Tensor
    point: Point
    start_energy: Tensor


@attrs.frozen(getstate_setstate=False)
class TrajectoryKernel(GradientKernel[P, Trajectory]):
    """A kernel whose trajectories have a known number of leapfrogs, accepted as a whole."""

    @abstractmethod
    def steps(self, chains: Chains) -> Tensor:
        """How many leapfrogs the transition under way has, (chains,)."""

    @abstractmethod
    def learnt(
        self, before: Chains, after: Chains, end: Point, done: Tensor, acceptance: Tensor
    ) -> Adaptation:
        """The adaptation after a transition.

        Args:
            before: The chains before it.
            after: The chains with its position.
            end: Where its trajectory ended.
            done: Which chains have done one.
            acceptance: The probability with which the end was accepted.
        """

    def start_path(self, chains: Chains) -> Trajectory:
        zero = torch.zeros_like(chains.position)
        point = Point(zero, zero, zero)
        return Trajectory(
            torch.zeros_like(chains.transition), point, torch.zeros_like(chains.potential_energy)
        )

    def turn_of(self, walk: Walk[Trajectory], gradient_of: Gradient) -> Walk[Trajectory]:
        chains, path, own = walk.chains, walk.path, walk.chains.adaptation
        fresh = path.leaf == 0
        momentum = momenta(chains, fresh)
        start = energy_of(chains, momentum, chains.potential_energy)
        start = torch.where(fresh, start, path.start_energy)
        begin = Point(chains.position, momentum, chains.gradient)
        (coin,) = uniforms(chains, path.leaf, 1)
        at = choose(fresh, begin, path.point)
        point, potential_energy = leapfrog(at, own.step_size, own.inverse_mass, gradient_of)
        leaf = path.leaf + 1
        done = leaf >= self.steps(chains)
        energy = energy_of(chains, point.momentum, potential_energy)
        error = energy - start
        error = torch.where(error.isnan(), torch.inf, error)
        acceptance = (-error).exp().clamp(max=1.0)
        accepted = done & (coin < acceptance)
        chains = chains._replace(
            position=choose(accepted, point.position, chains.position),
            gradient=choose(accepted, point.gradient, chains.gradient),
            potential_energy=torch.where(accepted, potential_energy, chains.potential_energy),
        )
        info = MCMCInfo(
            acceptance_rate=acceptance,
            diverging=is_divergent(error),
            energy=torch.where(accepted, energy, start),
            lp=-chains.potential_energy,
            n_steps=leaf,
            step_size=own.step_size,
            tree_depth=torch.zeros_like(leaf),
        )
        slots = kept(walk.slots, walk.plan, chains, info, done)
        adaptation = self.learnt(walk.chains, chains, point, done, acceptance)
        chains = chains._replace(
            transition=chains.transition + done.to(chains.transition.dtype), adaptation=adaptation
        )
        leaf = torch.where(done, torch.zeros_like(leaf), leaf)
        return Walk(chains, Trajectory(leaf, point, start), slots, walk.plan)


@attrs.frozen(getstate_setstate=False)
class HMC(TrajectoryKernel[P], Carried):
    r"""Hamiltonian Monte Carlo: trajectories of a given length, accepted or not as a whole.

    Attributes:
        model: Any model that ``apply`` takes.
        params: Unconstrained values of its parameters; they are fixed.
        init_strategy: Where each site starts, one of the ``init_to_...`` functions.
        step_size: The step size to start from.
        adapt_step_size: Whether it is adapted in warm-up.
        adapt_mass_matrix: Whether the mass matrix is adapted in warm-up.
        dense_mass: Whether the mass matrix is dense; or the blocks of sites for which it is,
            ``[("a", "b"), ("c",)]``.
        target_accept_prob: The acceptance rate that the step size is adapted to.
        trajectory_length: How long a trajectory is, $2 \pi$ by default: as many leapfrogs as
            fit into it, at least one.
        num_steps: How many leapfrogs a trajectory has, in place of a length.

    Source: ``numpyro.infer.HMC``; Neal 2011, "MCMC Using Hamiltonian Dynamics".

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import HMC
        >>> kernel = HMC(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), num_steps=5)
        >>> state, info = kernel.step(kernel.init(random.key(0)))
        >>> info.n_steps
        tensor(5)
    """

    trajectory_length: float | None = attrs.field(default=None, kw_only=True)
    num_steps: int | None = attrs.field(
        default=None, kw_only=True, converter=as_int_or_none, validator=positive
    )

    def __attrs_post_init__(self) -> None:
        if self.trajectory_length is not None and self.num_steps is not None:
            raise DeclarationError(
                f"HMC got trajectory_length={self.trajectory_length} and "
                f"num_steps={self.num_steps}, and either says how long a trajectory is. Give one."
            )
        if self.trajectory_length is not None and not 0 < self.trajectory_length < math.inf:
            raise DeclarationError(
                f"trajectory_length is {self.trajectory_length}. Give a number above 0."
            )

    def steps(self, chains: Chains) -> Tensor:
        step_size = chains.adaptation.step_size
        if self.num_steps is not None:
            return torch.full_like(step_size, self.num_steps)
        length = 2.0 * math.pi if self.trajectory_length is None else self.trajectory_length
        return (length / step_size).floor().clamp(min=1.0, max=LONGEST)

    def learnt(
        self, before: Chains, after: Chains, end: Point, done: Tensor, acceptance: Tensor
    ) -> Adaptation:
        return adapted(
            after,
            done,
            acceptance,
            self.target_accept_prob,
            step=self.adapt_step_size,
            mass=self.adapt_mass_matrix,
        )
