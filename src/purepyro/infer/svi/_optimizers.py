"""Functional optimisers: any ``(init, update)`` pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import attrs
import torch
from torch import Tensor
from torchopt.base import EmptyState, GradientTransformation
from torchopt.typing import TensorTree as Tree

from ..._compat._pyro import is_batched
from ..._core._pickling import Carried
from ..._core._trees import leaves_of, named_leaves, scaled, tensors_in, with_leaves
from ..._core._types import Params
from ..._errors import (
    DeclarationError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    describe,
    near,
)
from ._patterns import chosen, require_matches

OptState: TypeAlias = Any
"""The state of an optimiser: a pytree of tensors of its own kind."""


class Optimizer(Protocol):
    """A pure optimiser, as ``torchopt.adam(1e-2)`` is one.

    Its ``update`` is called as ``update(gradients, state, params=params)`` and returns what to add
    to the parameters, with the new state.

    Example:
        >>> import torchopt
        >>> from purepyro.infer import Optimizer
        >>> optim: Optimizer = torchopt.adam(1e-2)
    """

    @property
    def init(self) -> Callable[..., Any]:
        """From parameters to a first state."""
        ...

    @property
    def update(self) -> Callable[..., Any]:
        """From gradients and a state to what to add, and the next state."""
        ...


@attrs.frozen(getstate_setstate=False)
class Counted(Carried):
    """An optimiser that counts its steps in a Python number, with a tensor in its place.

    Only a tensor can be saved, stacked and compiled. It is of float64, since one minus a power of
    nearly one has few digits left in float32.
    """

    optim: Optimizer

    def init(self, params: Params) -> OptState:
        """The first state."""
        state = self.optim.init(params)
        leaves = [
            torch.tensor(leaf, dtype=torch.float64) if _is_count(leaf) else leaf
            for leaf in leaves_of(state)
        ]
        return with_leaves(state, leaves)

    def update(
        self, gradients: Params, state: OptState, *, params: Params
    ) -> tuple[Params, OptState]:
        """What to add to the parameters, of their dtypes, and the next state."""
        found, state = _called(self.optim, gradients, state, params)
        updates: Params = found
        if isinstance(found, Mapping) and found.keys() == params.keys():
            updates = {name: update.to(params[name].dtype) for name, update in found.items()}
        return updates, state


def counted(optim: Optimizer) -> Optimizer:
    """``optim``, with a tensor for each Python number in its state, if it has any."""
    if isinstance(optim, Counted | PerParameter):
        return optim
    try:
        state = optim.init({"x": torch.zeros(())})
    except Exception:  # none that takes any parameters; the fit itself will tell
        return optim
    return Counted(optim) if any(map(_is_count, leaves_of(state))) else optim


def _is_count(leaf: object) -> bool:
    return isinstance(leaf, int) and not isinstance(leaf, bool)


@attrs.frozen(getstate_setstate=False)
class PerParameter(Carried):
    """Optimisers by pattern: each parameter belongs to the first pattern that matches its name."""

    optimizers: tuple[tuple[str, Optimizer], ...]

    def init(self, params: Params) -> dict[str, OptState]:
        """A state for each pattern."""
        self._check(tuple(params))
        groups = _groups(self._patterns, tuple(params))
        return {
            pattern: optim.init({name: params[name] for name in groups[pattern]})
            for pattern, optim in self.optimizers
        }

    def update(
        self, gradients: Params, state: Mapping[str, OptState], *, params: Params
    ) -> tuple[Params, dict[str, OptState]]:
        """What each pattern's optimiser adds to its parameters."""
        groups = _groups(self._patterns, tuple(params))
        updates: Params = {}
        after: dict[str, OptState] = {}
        for pattern, optim in self.optimizers:
            names = groups[pattern]
            mine, after[pattern] = _update(
                optim,
                {name: gradients[name] for name in names},
                state[pattern],
                {name: params[name] for name in names},
            )
            updates.update(mine)
        return updates, after

    @property
    def _patterns(self) -> tuple[str, ...]:
        return tuple(pattern for pattern, _ in self.optimizers)

    def _check(self, names: tuple[str, ...]) -> None:
        patterns = self._patterns
        require_matches(patterns, names, "The mapping of optimisers")
        for pattern, members in _groups(patterns, names).items():
            if not members:
                raise UnknownNameError(
                    f"The mapping of optimisers has the pattern {pattern!r}, whose parameters all "
                    "belong to an earlier pattern, so its optimiser would do nothing. The first "
                    "match counts: put the special patterns before the general ones."
                )
        missing = sorted(set(names) - chosen(patterns, names))
        if missing:
            raise MissingNameError(
                f"No optimiser is given for the parameters {missing}, so they would stay as they "
                f"are. {near(missing[0], patterns)} Add a last pattern '*', or name them in "
                "SVI(..., frozen=...)."
            )


@lru_cache(maxsize=256)
def _groups(patterns: tuple[str, ...], names: tuple[str, ...]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {pattern: [] for pattern in patterns}
    for name in names:
        for pattern in patterns:
            if chosen((pattern,), (name,)):
                groups[pattern].append(name)
                break
    return groups


def clip_grad_norm(max_norm: float) -> GradientTransformation:
    """Scales all gradients down together where their norm is above ``max_norm``.

    Chain it before an optimiser. Unlike ``torchopt.clip.clip_grad_norm`` it never reads a number
    back to Python, so it is legal under ``vmap``, where each member is clipped by its own norm.

    Args:
        max_norm: The largest Euclidean norm, over all parameters, to let through.

    Example:
        >>> import torch, torchopt
        >>> from purepyro.infer import clip_grad_norm
        >>> optim = torchopt.chain(clip_grad_norm(1.0), torchopt.sgd(1.0))
        >>> gradients = {"a": torch.tensor(3.0), "b": torch.tensor(4.0)}
        >>> optim.update(gradients, optim.init(gradients), inplace=False)[0]
        {'a': tensor(-0.6000), 'b': tensor(-0.8000)}
    """
    if not max_norm > 0:
        raise DeclarationError(
            f"clip_grad_norm got max_norm={max_norm!r}, with which no step would move. Give a "
            "positive number."
        )

    def init(params: Tree) -> OptState:
        return EmptyState()

    def update(
        updates: Tree, state: OptState, *, params: Tree | None = None, inplace: bool = True
    ) -> tuple[Tree, OptState]:
        norms = [torch.linalg.vector_norm(leaf) for leaf in tensors_in(updates)]
        if not norms:
            return updates, state
        norm = torch.linalg.vector_norm(torch.stack([each.to(norms[0].device) for each in norms]))
        return scaled(updates, (max_norm / (norm + 1e-6)).clamp(max=1.0)), state

    return GradientTransformation(init, update)


def scale(factor: Tensor | float) -> GradientTransformation:
    """Multiplies what an optimiser does by a factor, which may be a tensor.

    Chain it after an optimiser of unit length to have the learning rate as a tensor: one of each
    member of an ensemble, or an argument of a compiled step. (``torchopt.adam(lr)`` compares its
    rate with zero in Python, so it takes no tensor under ``vmap``.)

    Args:
        factor: A number or a 0-d tensor.

    Example:
        >>> import torch, torchopt
        >>> from purepyro.infer import scale
        >>> optim = torchopt.chain(torchopt.sgd(1.0), scale(torch.tensor(0.1)))
        >>> gradients = {"a": torch.tensor(3.0)}
        >>> optim.update(gradients, optim.init(gradients), inplace=False)[0]
        {'a': tensor(-0.3000)}
    """
    if isinstance(factor, Tensor) and factor.ndim:
        raise ShapeError(
            f"scale got the factor {describe(factor)}, but all parameters of an optimiser share "
            "one factor. Give a 0-d tensor; for several rates SVI takes several optimisers, by "
            "pattern, and for one of each member Ensemble(make_svi, members=...)."
        )

    def init(params: Tree) -> OptState:
        return EmptyState()

    def update(
        updates: Tree, state: OptState, *, params: Tree | None = None, inplace: bool = True
    ) -> tuple[Tree, OptState]:
        return scaled(updates, torch.as_tensor(factor)), state

    return GradientTransformation(init, update)


def check_optimizer(optim: Optimizer, state: OptState, params: Params) -> None:
    """Refuse an optimiser that would change the structure of the run's state.

    Takes one step along no gradient, whose result is dropped.
    """
    still = {name: torch.zeros_like(value) for name, value in params.items()}
    new_params, new_state = descend(optim, still, state, params)
    before, after = named_leaves((params, state)), named_leaves((new_params, new_state))
    changed = [
        f"{name.partition('/')[2]}: {describe(before.get(name, 'none'))} became "
        f"{describe(after.get(name, 'none'))}"
        for name in before.keys() | after.keys()
        if describe(before.get(name)) != describe(after.get(name))
        or isinstance(before.get(name), Tensor) != isinstance(after.get(name), Tensor)
    ]
    if changed:
        raise DeclarationError(
            f"The optimiser {describe(optim)} changes the structure of the state in a step: "
            f"{'; '.join(sorted(changed))}. A run's state keeps its names, shapes and dtypes, so "
            "that it can be saved, stacked and compiled. Return updates shaped like the "
            "parameters, and a state like the one from init."
        )


def descend(
    optim: Optimizer, gradients: Params, state: OptState, params: Params
) -> tuple[Params, OptState]:
    """The parameters and the state after one step; the arguments stay as they are."""

    def update(gradients: Params, state: OptState, params: Params) -> tuple[Params, OptState]:
        updates, state = _update(optim, gradients, state, params)
        return {name: params[name] + updates[name] for name in params}, state

    if any(is_batched(gradient) for gradient in tensors_in(gradients)):
        # torchopt computes in place on its own tensors, which vmap takes only so.
        result: tuple[Params, OptState] = torch.func.functionalize(update)(gradients, state, params)
        return result
    return update(gradients, state, params)


def _update(
    optim: Optimizer, gradients: Params, state: OptState, params: Params
) -> tuple[Params, OptState]:
    updates, state = _called(optim, gradients, state, params)
    if not isinstance(updates, Mapping) or updates.keys() != params.keys():
        given = sorted(updates) if isinstance(updates, Mapping) else describe(updates)
        raise DeclarationError(
            f"The optimiser {describe(optim)} returned updates for {given}, but the parameters "
            f"are {sorted(params)}. Some would silently stay as they are. Return one update for "
            "each parameter, by the same names."
        )
    return dict(updates), state


def _called(
    optim: Optimizer, gradients: Params, state: OptState, params: Params
) -> tuple[Any, OptState]:
    """What the optimiser itself returns."""
    if isinstance(optim, GradientTransformation):
        return optim.update(gradients, state, params=params, inplace=False)
    found: tuple[Any, OptState] = optim.update(gradients, state, params=params)
    return found
