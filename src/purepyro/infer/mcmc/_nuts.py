"""The No-U-Turn Sampler, of which a turn is one leapfrog.

A trajectory is doubled by a subtree of as many leapfrogs as it has, forwards or backwards in time,
until it makes a U-turn. Subtrees within a subtree are checked as well, when their last leaf comes:
since they begin at leaves whose numbers end in zeros, as many as their binary number has ones are
open at a time, and have a level each. So a turn needs no recursion and no loop, and a chain that
ends its trajectory begins the next one while others are still on theirs.
"""

from __future__ import annotations

from typing import NamedTuple, ParamSpec

import attrs
import torch
from torch import Tensor

from ..._core._pickling import Carried
from ..._core._whole_numbers import as_int
from ._kernel import GradientKernel, positive
from ._mass import dot, velocity
from ._moves import (
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
from ._state import Chains, MCMCInfo
from ._warmup import adapted

P = ParamSpec("P")


class Levels(NamedTuple):
    """The open subtrees of a subtree, (chains, levels, D).

    Attributes:
        first: The momentum at the first leaf.
        before: The sum of the momenta before it.
        middle: The momentum at the last leaf of its first half.
        before_middle: The sum of the momenta before that.
    """

    first: Tensor
    before: Tensor
    middle: Tensor
    before_middle: Tensor


class Tree(NamedTuple):
    """A trajectory that is being built.

    Attributes:
        leaf: How many leapfrogs there were.
        place: How many of them are of the subtree that is being built.
        depth: How many doublings are done.
        direction: In which direction of time it is being built, 1 or -1.
        near: The end that moves.
        far: The other end.
        seam: The momentum where the subtree was begun.
        total: The sum of the momenta of the tree without the subtree.
        of_subtree: That of the subtree.
        log_weight: The log of the sum of the weights of the tree without the subtree.
        log_weight_of_subtree: That of the subtree.
        position: The position drawn from the subtree.
        gradient: The gradient there.
        potential_energy: The potential energy there.
        energy: The energy there.
        start_energy: The energy at the start of the trajectory.
        chosen_energy: The energy of the point that the transition would end with.
        acceptance: The sum of the acceptance probabilities.
        levels: The open subtrees within the subtree.
    """

    leaf: Tensor
    place: Tensor
    depth: Tensor
    direction: Tensor
    near: Point
    far: Point
    seam: Tensor
    total: Tensor
    of_subtree: Tensor
    log_weight: Tensor
    log_weight_of_subtree: Tensor
    position: Tensor
    gradient: Tensor
    potential_energy: Tensor
    energy: Tensor
    start_energy: Tensor
    chosen_energy: Tensor
    acceptance: Tensor
    levels: Levels


@attrs.frozen(getstate_setstate=False)
class NUTS(GradientKernel[P, Tree], Carried):
    """The No-U-Turn Sampler: Hamiltonian trajectories as long as they lead away.

    The multinomial variant with the generalised criterion, and Stan's additional checks across
    subtrees.

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
        max_tree_depth: How often a trajectory is doubled at most.

    Source: ``numpyro.infer.NUTS``; Hoffman and Gelman 2014, "The No-U-Turn Sampler"; Betancourt
    2017, "A Conceptual Introduction to Hamiltonian Monte Carlo"; Phan, Pradhan and Jankowiak 2019,
    "Composable Effects for Flexible and Accelerated Probabilistic Programming in NumPyro".

    Examples:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import NUTS
        >>> kernel = NUTS(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), step_size=0.5)
        >>> state = kernel.init(random.key(0))
        >>> state, info = kernel.step(state)
        >>> bool(info.acceptance_rate > 0.5), state.transition
        (True, tensor(1))
    """

    max_tree_depth: int = attrs.field(
        default=10, kw_only=True, converter=as_int, validator=positive
    )

    def start_path(self, chains: Chains) -> Tree:
        zero, count = torch.zeros_like(chains.position), torch.zeros_like(chains.transition)
        scalar = torch.zeros_like(chains.potential_energy)
        point = Point(zero, zero, zero)
        level = zero.unsqueeze(-2).repeat(1, max(1, self.max_tree_depth - 1), 1)
        return Tree(
            leaf=count,
            place=count,
            depth=count,
            direction=scalar + 1.0,
            near=point,
            far=point,
            seam=zero,
            total=zero,
            of_subtree=zero,
            log_weight=scalar,
            log_weight_of_subtree=scalar,
            position=zero,
            gradient=zero,
            potential_energy=scalar,
            energy=scalar,
            start_energy=scalar,
            chosen_energy=scalar,
            acceptance=scalar,
            levels=Levels(level, level, level, level),
        )

    def turn_of(self, walk: Walk[Tree], gradient_of: Gradient) -> Walk[Tree]:
        tree = _grown(walk, walk.path, momenta(walk.chains, walk.path.leaf == 0))
        chains, inverse_mass = walk.chains, walk.chains.adaptation.inverse_mass
        coin, draw, forward = uniforms(chains, walk.path.leaf, 3)
        tree = _begun(tree, torch.where(forward < 0.5, 1.0, -1.0).to(forward.dtype))
        step = tree.direction * chains.adaptation.step_size
        near, potential_energy = leapfrog(tree.near, step, inverse_mass, gradient_of)
        energy = energy_of(chains, near.momentum, potential_energy)
        tree, error = _with_leaf(tree, near, potential_energy, energy, draw)
        turning = self._turns_within(tree, inverse_mass)
        tree = tree._replace(levels=_with_level(tree))
        bad = turning | is_divergent(error)
        whole = tree.place + 1 == 1 << tree.depth
        chains, tree, turned = _joined(chains, tree, whole & ~bad, coin, inverse_mass)
        tree = tree._replace(leaf=tree.leaf + 1, place=torch.where(whole | bad, 0, tree.place + 1))
        done = bad | turned | (tree.depth == self.max_tree_depth)
        info = MCMCInfo(
            acceptance_rate=tree.acceptance / tree.leaf,
            diverging=is_divergent(error),
            energy=tree.chosen_energy,
            lp=-chains.potential_energy,
            n_steps=tree.leaf,
            step_size=chains.adaptation.step_size,
            tree_depth=tree.depth,
        )
        slots = kept(walk.slots, walk.plan, chains, info, done)
        adaptation = adapted(
            chains,
            done,
            info.acceptance_rate,
            self.target_accept_prob,
            step=self.adapt_step_size,
            mass=self.adapt_mass_matrix,
        )
        chains = chains._replace(
            transition=chains.transition + done.to(chains.transition.dtype), adaptation=adaptation
        )
        zero = torch.zeros_like(tree.leaf)
        tree = tree._replace(
            leaf=torch.where(done, zero, tree.leaf), depth=torch.where(done, zero, tree.depth)
        )
        return Walk(chains, tree, slots, walk.plan)

    def _turns_within(self, tree: Tree, inverse_mass: Tensor) -> Tensor:
        """Whether a subtree that ends with the last leaf makes a U-turn."""
        levels, count = tree.levels, tree.levels.first.shape[1]
        last, sofar = tree.near.momentum.unsqueeze(-2), tree.of_subtree.unsqueeze(-2)
        highest, ending = _level_of(tree.place, self.max_tree_depth)
        level = torch.arange(count, device=highest.device)
        highest, ending = highest.unsqueeze(-1), ending.unsqueeze(-1)
        checked = (level <= highest) & (level > highest - ending)
        turning = checked & ~_leads_away(inverse_mass, levels.first, last, sofar - levels.before)
        if count > 1:
            # Of more than two leaves: the next level is that of its second half.
            first, before = levels.first[:, 1:], levels.before[:, 1:]
            here = Levels(*(each[:, :-1] for each in levels))
            across = before + first - here.before
            one = _leads_away(inverse_mass, here.first, first, across)
            two = _leads_away(inverse_mass, here.middle, last, sofar - here.before_middle)
            inner = checked[:, :-1] & (level[:-1] < highest)
            return turning.any(-1) | (inner & ~(one & two)).any(-1)
        return turning.any(-1)


def _grown(walk: Walk[Tree], tree: Tree, momentum: Tensor) -> Tree:
    """The tree; at the start of a transition one of a single point."""
    chains = walk.chains
    fresh = tree.leaf == 0
    start = Point(chains.position, momentum, chains.gradient)
    energy = energy_of(chains, momentum, chains.potential_energy)
    return tree._replace(
        near=choose(fresh, start, tree.near),
        far=choose(fresh, start, tree.far),
        total=choose(fresh, momentum, tree.total),
        log_weight=torch.where(fresh, 0.0, tree.log_weight),
        start_energy=torch.where(fresh, energy, tree.start_energy),
        chosen_energy=torch.where(fresh, energy, tree.chosen_energy),
        acceptance=torch.where(fresh, 0.0, tree.acceptance),
    )


def _begun(tree: Tree, direction: Tensor) -> Tree:
    """The tree; where a subtree begins, with the end in its direction as the one that moves."""
    begins = tree.place == 0
    direction = torch.where(begins, direction, tree.direction)
    swaps = direction != tree.direction
    near = choose(swaps, tree.far, tree.near)
    return tree._replace(
        direction=direction,
        near=near,
        far=choose(swaps, tree.near, tree.far),
        seam=choose(begins, near.momentum, tree.seam),
        of_subtree=choose(begins, torch.zeros_like(tree.of_subtree), tree.of_subtree),
        log_weight_of_subtree=torch.where(begins, -torch.inf, tree.log_weight_of_subtree),
    )


def _with_leaf(
    tree: Tree, near: Point, potential_energy: Tensor, energy: Tensor, draw: Tensor
) -> tuple[Tree, Tensor]:
    """The tree with one more leaf, and the error of the energy there."""
    error = energy - tree.start_energy
    error = torch.where(error.isnan(), torch.inf, error)
    log_weight = torch.logaddexp(tree.log_weight_of_subtree, -error)
    chosen = draw < (-error - log_weight).exp()
    return tree._replace(
        near=near,
        of_subtree=tree.of_subtree + near.momentum,
        log_weight_of_subtree=log_weight,
        position=choose(chosen, near.position, tree.position),
        gradient=choose(chosen, near.gradient, tree.gradient),
        potential_energy=torch.where(chosen, potential_energy, tree.potential_energy),
        energy=torch.where(chosen, energy, tree.energy),
        acceptance=tree.acceptance + (-error).exp().clamp(max=1.0),
    ), error


def _with_level(tree: Tree) -> Levels:
    """The open subtrees, after the last leaf, which opens one, or ends the first half of one."""
    levels, bits = tree.levels, tree.levels.first.shape[1] + 1
    highest, ending = _level_of(tree.place, bits)
    level = torch.arange(bits - 1, device=highest.device)
    # The largest subtree that the leaf ends is the first half of a larger one.
    half = (level == (highest - ending + (ending > 0)).unsqueeze(-1)).unsqueeze(-1)
    opens = half & (ending == 0).reshape(-1, 1, 1)
    momentum = tree.near.momentum.unsqueeze(-2)
    before = tree.of_subtree.unsqueeze(-2) - momentum
    return Levels(
        torch.where(opens, momentum, levels.first),
        torch.where(opens, before, levels.before),
        torch.where(half, momentum, levels.middle),
        torch.where(half, before, levels.before_middle),
    )


def _level_of(index: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The level of the innermost subtree that a leaf is in, and how many subtrees end with it."""
    places = torch.arange(1, bits + 1, device=index.device)
    ones = (index.unsqueeze(-1) >> places) & 1
    flipped = index ^ (index + 1)  # a one for each one at the end, and one more
    return ones.sum(-1), ((flipped.unsqueeze(-1) >> places) & 1).sum(-1)


def _leads_away(inverse_mass: Tensor, one: Tensor, other: Tensor, between: Tensor) -> Tensor:
    """Whether the momenta at both ends point along the sum of all between them."""
    along = velocity(inverse_mass, between)
    return (dot(one, along) > 0) & (dot(other, along) > 0)


def _joined(
    chains: Chains, tree: Tree, joins: Tensor, coin: Tensor, inverse_mass: Tensor
) -> tuple[Chains, Tree, Tensor]:
    """Chains and tree with the subtree, where that is whole; and whether it made a U-turn."""
    accepted = joins & (coin < (tree.log_weight_of_subtree - tree.log_weight).exp())
    first, last = tree.levels.first[:, 0], tree.near.momentum
    total = tree.total + tree.of_subtree
    ends = torch.stack([tree.far.momentum, tree.far.momentum, tree.seam], 1)
    others = torch.stack([last, first, last], 1)
    sums = torch.stack([total, tree.total + first, tree.of_subtree + tree.seam], 1)
    away = _leads_away(inverse_mass, ends, others, sums).all(-1)
    chains = chains._replace(
        position=choose(accepted, tree.position, chains.position),
        gradient=choose(accepted, tree.gradient, chains.gradient),
        potential_energy=torch.where(accepted, tree.potential_energy, chains.potential_energy),
    )
    log_weight = torch.logaddexp(tree.log_weight, tree.log_weight_of_subtree)
    return (
        chains,
        tree._replace(
            depth=tree.depth + joins.to(tree.depth.dtype),
            total=choose(joins, total, tree.total),
            log_weight=torch.where(joins, log_weight, tree.log_weight),
            chosen_energy=torch.where(accepted, tree.energy, tree.chosen_energy),
        ),
        joins & ~away,
    )
