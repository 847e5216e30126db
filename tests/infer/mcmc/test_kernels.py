"""Single transitions: trees as the recursion has them, energies, and what leaves a law as it is."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from purepyro import jit, random
from purepyro._core._trees import mapped
from purepyro._errors import DeclarationError, ShapeError, TraceError, UnknownNameError
from purepyro.infer import HMC, NUTS, MCMCState
from purepyro.infer.mcmc._kernel import GradientKernel, chains_of
from purepyro.infer.mcmc._moves import Gradient, Point, leapfrog, momenta, uniforms
from purepyro.infer.mcmc._potential import Layout

KEY = random.key(0)
Y = torch.tensor([1.0, -0.5, 2.0, 0.3])


def banana(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(a**2, 0.3))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(a + b, scale), obs=y)


# A recursive NUTS, after Stan's, to compare trees with


class Branch(NamedTuple):
    """A subtree: its ends, the sum of its momenta, and whether it can be used."""

    first: Tensor
    last: Tensor
    total: Tensor
    good: bool


class Recursion:
    """Builds subtrees by recursion, one leapfrog at a leaf."""

    def __init__(self, gradient: Gradient, step: float, mass: Tensor, energy: float) -> None:
        self.gradient, self.step, self.mass, self.energy = gradient, step, mass, energy
        self.leaves = 0
        self.divergent = False

    def away(self, one: Tensor, other: Tensor, total: Tensor) -> bool:
        along = self.mass * total
        return bool((one * along).sum() > 0) and bool((other * along).sum() > 0)

    def joined(self, left: Branch, right: Branch) -> Branch:
        total = left.total + right.total
        good = (
            self.away(left.first, right.last, total)
            and self.away(left.first, right.first, left.total + right.first)
            and self.away(left.last, right.last, right.total + left.last)
        )
        return Branch(left.first, right.last, total, good)

    def grow(self, at: Point, depth: int, sign: int) -> tuple[Point, Branch]:
        if depth == 0:
            self.leaves += 1
            point, potential = leapfrog(
                at, torch.tensor([sign * self.step]), self.mass, self.gradient
            )
            kinetic = 0.5 * (point.momentum.square() * self.mass).sum()
            self.divergent = not float(potential + kinetic) - self.energy < 1_000.0
            r = point.momentum
            return point, Branch(r, r, r, not self.divergent)
        at, one = self.grow(at, depth - 1, sign)
        if not one.good:
            return at, one
        at, two = self.grow(at, depth - 1, sign)
        if not two.good:
            return at, two
        return at, self.joined(one, two)


def tree_of(kernel: NUTS[[Tensor]], state: MCMCState) -> tuple[int, int, bool]:
    """Leapfrogs, depth and divergence of the next transition, by recursion."""
    layout = Layout.of(state.position)
    flat = layout.flat(state.position)
    batched = mapped(lambda leaf: leaf.unsqueeze(0), state)
    chains = chains_of(batched, layout)
    r = momenta(chains, torch.tensor([True]))
    mass = state.adaptation.inverse_mass.unsqueeze(0)
    energy = float(state.potential_energy + 0.5 * (r.square() * mass).sum())
    gradient = kernel.gradient_of(layout, (Y,), {})
    recursion = Recursion(gradient, float(state.adaptation.step_size), mass, energy)
    start = Point(flat.unsqueeze(0), r, state.gradient.unsqueeze(0))
    ends = {1: start, -1: start}
    tree, depth = Branch(r, r, r, True), 0
    while depth < kernel.max_tree_depth:
        forward = uniforms(chains, torch.tensor([recursion.leaves]), 3)[2]
        sign = 1 if float(forward) < 0.5 else -1
        ends[sign], new = recursion.grow(ends[sign], depth, sign)
        if not new.good:
            break
        depth += 1
        # The criteria are the same with both directions of time exchanged.
        old = tree if sign == 1 else Branch(tree.last, tree.first, tree.total, True)
        tree = recursion.joined(old, new)
        tree = tree if sign == 1 else Branch(tree.last, tree.first, tree.total, tree.good)
        if not tree.good:
            break
    return recursion.leaves, depth, recursion.divergent


@pytest.mark.parametrize("step_size", [0.1, 0.2, 0.35])
def test_trees_are_those_of_the_recursion(step_size: float) -> None:
    kernel = NUTS(banana, step_size=step_size, max_tree_depth=6)
    state = kernel.init(KEY, Y)
    found = []
    for _ in range(25):
        wanted = tree_of(kernel, state)
        state, info = kernel.step(state, Y)
        found.append((int(info.n_steps), int(info.tree_depth), bool(info.diverging)))
        assert found[-1] == wanted
    assert len(set(found)) > 2  # not all alike


def test_a_divergence_is_told() -> None:
    kernel = NUTS(banana, step_size=50.0)
    state = kernel.init(KEY, Y)
    after, info = kernel.step(state, Y)
    assert bool(info.diverging)
    assert int(info.n_steps) == 1
    assert torch.equal(after.position["a"], state.position["a"])
    assert tree_of(kernel, state) == (1, 0, True)


# Laws


def test_the_energy_error_falls_as_the_square_of_the_step() -> None:
    errors = []
    for halvings in range(4):
        step, steps = 0.1 / 2**halvings, 8 * 2**halvings
        kernel = HMC(banana64, step_size=step, num_steps=steps)
        state = kernel.init(random.key(3))
        layout = Layout.of(state.position)
        gradient = kernel.gradient_of(layout, (), {})
        r = random.normal(KEY, 1, 2, dtype=torch.float64)
        at = Point(layout.flat(state.position).unsqueeze(0), r, state.gradient.unsqueeze(0))
        start = state.potential_energy + 0.5 * r.square().sum()
        energy = start
        for _ in range(steps):
            at, potential = leapfrog(at, torch.tensor([step]).double(), torch.ones(1, 2), gradient)
            energy = potential + 0.5 * at.momentum.square().sum()
        errors.append(abs(float(energy - start)))
    rates = [math.log2(one / two) for one, two in pairwise(errors)]
    assert all(abs(rate - 2.0) < 0.1 for rate in rates), rates


def banana64() -> None:
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    a = pyro.sample("a", dist.Normal(zero, one))
    pyro.sample("b", dist.Normal(a**2, 0.5 * one))


def test_a_trajectory_is_reversible() -> None:
    kernel = HMC(banana64, step_size=0.1, num_steps=1)
    state = kernel.init(random.key(3))
    layout = Layout.of(state.position)
    gradient = kernel.gradient_of(layout, (), {})
    r = random.normal(KEY, 1, 2, dtype=torch.float64)
    start = Point(layout.flat(state.position).unsqueeze(0), r, state.gradient.unsqueeze(0))
    at, mass = start, torch.tensor([[0.7, 1.3]])
    for sign in (1, -1):
        for _ in range(20):
            at, _ = leapfrog(at, torch.tensor([sign * 0.1]).double(), mass, gradient)
    torch.testing.assert_close(at.position, start.position, rtol=0, atol=1e-12)
    torch.testing.assert_close(at.momentum, start.momentum, rtol=0, atol=1e-12)


KERNELS: list[Callable[[Callable[..., object]], GradientKernel[..., Any]]] = [
    lambda model: NUTS(model, step_size=0.4, max_tree_depth=4),
    lambda model: HMC(model, step_size=0.4, num_steps=3),
]


@pytest.mark.parametrize("kernel_of", KERNELS, ids=["nuts", "hmc"])
def test_the_joint_distribution_stays_as_it_is(
    kernel_of: Callable[[Callable[..., object]], GradientKernel[..., object]],
) -> None:
    # Geweke 2004: parameters from the prior, data given them, then transitions given the data. The
    # parameters must still have the prior. 4,000 chains of 3 transitions; statistics within 4
    # standard errors of the prior's.
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        scale = pyro.sample("scale", dist.Gamma(3.0, 3.0))
        with pyro.plate("rows", 2):
            pyro.sample("y", dist.Normal(loc, scale), obs=y)

    count = 4_000
    one, two, three = random.split(KEY, 3)
    loc = random.normal(one, count)
    with random.keyed(two):
        scale = dist.Gamma(3.0, 3.0).sample(torch.Size([count]))
    y = loc.unsqueeze(-1) + scale.unsqueeze(-1) * random.normal(three, count, 2)
    kernel = kernel_of(model)

    def chain(key: Tensor, loc: Tensor, scale: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        start = {"loc": loc, "scale": scale.log()}
        state = kernel.begun(random.Key(key), start, y)
        for _ in range(3):
            state, _ = kernel.step(state, y)
        return state.position["loc"], state.position["scale"].exp()

    new_loc, new_scale = torch.vmap(chain)(random.split(random.key(1), count), loc, scale, y)
    assert bool((new_loc != loc).float().mean() > 0.9)
    for value, mean, sd in (
        (new_loc, 0.0, 1.0),
        (new_loc.square(), 1.0, math.sqrt(2.0)),
        (new_scale, 1.0, math.sqrt(1 / 3)),
        (new_scale.log(), float(torch.digamma(torch.tensor(3.0))) - math.log(3.0), None),
        (new_loc * (new_scale - 1.0), 0.0, math.sqrt(1 / 3)),
    ):
        error = (float(value.std()) if sd is None else sd) / math.sqrt(count)
        assert abs(float(value.mean()) - mean) < 4.0 * error


@pytest.mark.parametrize("kernel_of", KERNELS, ids=["nuts", "hmc"])
def test_vmap_is_a_loop(
    kernel_of: Callable[[Callable[..., object]], GradientKernel[..., object]],
) -> None:
    kernel = kernel_of(banana)
    keys = random.split(KEY, 3)
    states = torch.vmap(lambda key: kernel.init(random.Key(key), Y))(keys)
    states, infos = torch.vmap(lambda state: kernel.step(state, Y))(states)
    states, infos = torch.vmap(lambda state: kernel.step(state, Y))(states)
    for i in range(3):
        state, _ = kernel.step(kernel.init(keys[i], Y), Y)
        state, info = kernel.step(state, Y)
        for name, value in state.position.items():
            torch.testing.assert_close(states.position[name][i], value, rtol=1e-4, atol=1e-4)
        assert infos.n_steps[i] == info.n_steps


@pytest.mark.compiled
def test_step_cannot_be_traced_and_says_what_can() -> None:
    kernel = NUTS(banana)
    state = kernel.init(KEY, Y)
    with pytest.raises(TraceError, match=r"MCMC.*compiled=True"):
        jit(kernel.step)(state, Y)


def test_kernels_and_states_can_be_pickled() -> None:
    kernel = NUTS(banana, dense_mass=[("a", "b")])
    state = kernel.init(KEY, Y)
    again, saved = pickle.loads(pickle.dumps((kernel, state)))
    one, two = kernel.step(state, Y), again.step(saved, Y)
    assert torch.equal(one[0].position["a"], two[0].position["a"])


# Settings


def test_settings_are_checked() -> None:
    with pytest.raises(ShapeError, match="max_tree_depth is 0"):
        NUTS(banana, max_tree_depth=0)
    with pytest.raises(DeclarationError, match=r"target_accept_prob is 1\.5"):
        NUTS(banana, target_accept_prob=1.5)
    with pytest.raises(DeclarationError, match=r"step_size is -1\.0"):
        HMC(banana, step_size=-1.0)
    with pytest.raises(DeclarationError, match=r"num_steps=3.*Give one"):
        HMC(banana, trajectory_length=1.0, num_steps=3)
    with pytest.raises(DeclarationError, match=r"dense_mass is 'a'"):
        NUTS(banana, dense_mass="a")
    with pytest.raises(UnknownNameError, match=r"dense_mass has 'c'"):
        NUTS(banana, dense_mass=[("a", "c")]).init(KEY, Y)
    with pytest.raises(DeclarationError, match="'a' in two blocks"):
        NUTS(banana, dense_mass=[("a", "b"), ("a",)]).init(KEY, Y)


def test_hmc_takes_as_many_leapfrogs_as_it_says() -> None:
    for kernel, count in (
        (HMC(banana, step_size=0.3, num_steps=4), 4),
        (HMC(banana, step_size=0.3, trajectory_length=1.0), 3),
        (HMC(banana, step_size=3.0, trajectory_length=1.0), 1),
        (HMC(banana, step_size=0.5), 12),
    ):
        _, info = kernel.step(kernel.init(KEY, Y), Y)
        assert int(info.n_steps) == count
