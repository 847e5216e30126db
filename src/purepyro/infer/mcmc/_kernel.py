"""Kernels: pure transitions of a chain, made of turns that many chains take together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import attrs
import torch
from torch import Tensor

from ..._compat._thread_state import intact
from ..._compat._transforms import innermost, is_tracing, is_transforming, outside_transforms, plain
from ..._compat._turns import unvalidated
from ..._compile.scan._scan import Loop
from ..._core._trees import mapped
from ..._core._types import Values
from ..._core._whole_numbers import whole
from ..._errors import DeclarationError, ShapeError, TraceError, describe
from ..._run._explained import explained
from ...random import Key, name_key
from ...random._reuse import consume
from ..autoguide import init_to_uniform
from ..autoguide._initialization import Initializer
from ._mass import DenseMass, as_dense_mass, blocks_of
from ._moves import Gradient, Walk, choose, goes
from ._potential import Layout, Potential
from ._state import Adaptation, Chains, Length, MCMCInfo, MCMCState, Plan, Slots
from ._warmup import schedule, settled

P = ParamSpec("P")
T = TypeVar("T")


def check_count(value: object, name: str, least: int = 1) -> int:
    """A count as a plain int; refuse one that is none, or below ``least``."""
    number = whole(value, least)
    if number is None:
        raise ShapeError(f"{name} is {describe(value)}. Give a whole number, {least} or more.")
    return number


def positive(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """A validator of counts that are 1 or more."""
    if value is not None:
        check_count(value, field.name)


def between(low: float, high: float) -> Callable[..., None]:
    """A validator of numbers between two others."""

    def check(_: object, field: attrs.Attribute[float], value: float) -> None:
        if not low < value < high:
            raise DeclarationError(
                f"{field.name} is {describe(value)}. Give a number between {low:g} and {high:g}."
            )

    return check


@attrs.frozen(getstate_setstate=False)
class GradientKernel(Generic[P, T]):
    """A kernel that moves along the gradient of a model's log density."""

    learns_together: ClassVar[bool] = False

    model: Callable[P, object]
    params: Values = attrs.field(factory=dict)
    init_strategy: Initializer = attrs.field(default=init_to_uniform, kw_only=True)
    step_size: float = attrs.field(
        default=1.0, kw_only=True, converter=float, validator=between(0.0, float("inf"))
    )
    adapt_step_size: bool = attrs.field(default=True, kw_only=True)
    adapt_mass_matrix: bool = attrs.field(default=True, kw_only=True)
    dense_mass: DenseMass = attrs.field(default=False, kw_only=True, converter=as_dense_mass)
    target_accept_prob: float = attrs.field(
        default=0.8, kw_only=True, converter=float, validator=between(0.0, 1.0)
    )

    @property
    def potential(self) -> Potential[P]:
        """The log density that it moves along."""
        return Potential(self.model, self.params, init_strategy=self.init_strategy)

    @intact
    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> MCMCState:
        """The state before the first transition; complete, so that it can be loaded into.

        Without a warm-up, which ``MCMC`` plans, step size and mass matrix stay as they are.

        Raises:
            DeclarationError: if a latent site cannot be moved, or a plate draws its rows.
            MissingNameError: if the model has no latent site, or lacks its data.
            SupportError: if no starting point has a finite density and gradient; it names the site.
        """
        consume(key, f"{type(self).__name__}.init")
        return self.begun(key, self.potential.init(key, *args, **kwargs), *args, **kwargs)

    def begun(self, key: Key, position: Values, /, *args: P.args, **kwargs: P.kwargs) -> MCMCState:
        """The state of a chain at a position.

        Args:
            key: The chain's key.
            position: Unconstrained values by site.
            *args: Arguments of the model.
            **kwargs: The same, by name.
        """
        keys = Key(key.unsqueeze(0))
        positions = mapped(lambda leaf: leaf.unsqueeze(0), dict(position))
        states = self.begun_all(keys, positions, *args, **kwargs)
        return mapped(lambda leaf: leaf.squeeze(0), states)

    def begun_all(
        self, keys: Key, positions: Values, /, *args: P.args, **kwargs: P.kwargs
    ) -> MCMCState:
        """``begun()`` for many chains, along a first dimension."""
        layout = Layout.of(positions, batch=1)
        flat = layout.flat(positions)
        energies, gradients = self.gradient_of(layout, args, kwargs)(flat)
        zero, vector = torch.zeros_like(energies), torch.zeros_like(flat)
        ones = vector + 1.0
        mass = ones if self.blocks(layout) is None else torch.diag_embed(ones)
        adaptation = Adaptation(
            step_size=zero + self.step_size,
            inverse_mass=mass,
            mass_root=mass.clone(),
            schedule=schedule(0).to(flat.device).repeat(len(flat), 1),
            center=(zero + 10.0 * self.step_size).log(),
            log_average=zero.clone(),
            shortfall=zero.clone(),
            updates=zero.clone(),
            mean=vector.clone(),
            spread=torch.zeros_like(mass),
            seen=zero.clone(),
            length=self.start_length(zero),
        )
        return MCMCState(
            position=dict(positions),
            potential_energy=energies,
            gradient=gradients,
            key=name_key(keys, "transitions"),
            transition=torch.zeros_like(keys[:, 0]),
            adaptation=adaptation,
        )

    def step(
        self, state: MCMCState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[MCMCState, MCMCInfo]:
        """One transition; returns the new state, and what the transition was like."""
        layout = Layout.of(state.position)
        chains = chains_of(mapped(lambda leaf: leaf.unsqueeze(0), state), layout)
        now = chains.transition
        walk = self.walk(chains, 1, Plan(now + 1, now, torch.ones_like(now)))
        turn = partial(self.turn, layout)
        while _any(goes(walk)):
            walk = turn(walk, *args, **kwargs)
        chains = self.settled(walk.chains, layout)
        after = mapped(lambda leaf: leaf.squeeze(0), states_of(chains, layout))
        return after, info_of(walk.slots.info[0, 0])

    def walk(self, chains: Chains, slots: int, plan: Plan) -> Walk[T]:
        """Chains at the start of a transition, with room for so many draws each."""
        count, size = chains.position.shape
        empty = Slots(
            chains.position.new_zeros(count, slots, size),
            chains.position.new_zeros(count, slots, len(MCMCInfo._fields)),
            torch.zeros_like(chains.transition),
        )
        return Walk(chains, self.start_path(chains), empty, plan)

    @intact
    def turn(self, layout: Layout, walk: Walk[T], /, *args: P.args, **kwargs: P.kwargs) -> Walk[T]:
        """A leapfrog of all chains that have a way to go, and what follows from it."""
        going = goes(walk)
        after = self.turn_of(walk, self.gradient_of(layout, args, kwargs))
        seen = plain(going)
        if seen is not None and bool(seen.all()):
            return after
        chains, path, slots = choose(going, after[:3], walk[:3])
        return Walk(chains, path, slots, walk.plan)

    def recorded_turn(
        self, walk: Walk[T], layout: Layout, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Walk[T], Tensor]:
        """``turn()``, and how many chains took part."""
        return self.turn(layout, walk, *args, **kwargs), goes(walk).sum()

    @cached_property  # of attrs, which has no lock
    def loop(self) -> Loop[Walk[T]]:
        """Turns in compiled blocks."""
        return Loop(self.recorded_turn)

    @abstractmethod
    def start_path(self, chains: Chains) -> T:
        """What a chain has at the start of a transition."""

    @abstractmethod
    def turn_of(self, walk: Walk[T], gradient_of: Gradient) -> Walk[T]:
        """A leapfrog of all chains."""

    def settled(self, chains: Chains, layout: Layout) -> Chains:
        """The chains with the mass matrices that they have learnt by the ends of windows."""
        return settled(chains, self.blocks(layout))

    def start_length(self, like: Tensor) -> Length | tuple[()]:
        """What is known of the length of trajectories before warm-up."""
        return ()

    def blocks(self, layout: Layout) -> Tensor | None:
        """Where the mass matrix may differ from zero; ``None``: it is diagonal."""
        return blocks_of(self.dense_mass, layout)

    def gradient_of(
        self, layout: Layout, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Gradient:
        """Potential energies and gradients of positions (chains, D)."""
        log_density: Callable[..., Tensor] = self.potential.log_density

        def energy(position: Tensor) -> Tensor:
            density = log_density(layout.unflat(position), *args, **kwargs)
            return -density.to(position.dtype)

        def of_all(position: Tensor) -> tuple[Tensor, Tensor]:
            with explained():
                if is_transforming():
                    gradients, energies = torch.vmap(torch.func.grad_and_value(energy))(position)
                    return energies, gradients
                # Autograd's own gradient costs half of functorch's.
                leaf = position.detach().requires_grad_()
                with torch.enable_grad(), unvalidated():
                    energies = torch.vmap(energy)(leaf)
                if not energies.requires_grad:
                    return energies, torch.zeros_like(leaf)
                (gradient,) = torch.autograd.grad(energies.sum(), leaf, materialize_grads=True)
                return energies.detach(), gradient

        return of_all


def chains_of(states: MCMCState, layout: Layout) -> Chains:
    """States along a first dimension, with flat positions."""
    return Chains(
        layout.flat(states.position),
        states.potential_energy,
        states.gradient,
        states.key,
        states.transition,
        states.adaptation,
    )


def states_of(chains: Chains, layout: Layout) -> MCMCState:
    """Chains as states along a first dimension."""
    return MCMCState(
        layout.unflat(chains.position),
        chains.potential_energy,
        chains.gradient,
        Key(chains.key),
        chains.transition,
        chains.adaptation,
    )


def info_of(rows: Tensor) -> MCMCInfo:
    """What transitions were like, from the rows (..., 7) of slots."""
    found = MCMCInfo(*rows.unbind(-1))
    return found._replace(
        diverging=found.diverging > 0.5,
        n_steps=found.n_steps.to(torch.int64),
        tree_depth=found.tree_depth.to(torch.int64),
    )


def _any(flags: Tensor) -> bool:
    """Whether any flag is set, in any lane of vmap."""
    if is_tracing():
        raise TraceError(
            "A kernel's step takes as many leapfrogs as the values in it say, so it cannot be "
            "traced into a graph. Use MCMC(kernel, ..., compiled=True), which compiles the turns "
            "that steps are made of."
        )
    seen = innermost(flags)
    with outside_transforms():
        return bool(seen.any())
