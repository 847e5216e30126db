"""Runs of many chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, ParamSpec, TypeVar

import attrs
import torch
from torch import Tensor

from ..._compat._thread_state import intact
from ..._compat._transforms import is_transforming
from ..._compile._jit import is_enabled
from ..._core._pickling import Carried
from ..._core._trees import mapped
from ..._core._whole_numbers import as_int, as_int_or_none
from ..._errors import DeclarationError, ShapeError, describe
from ..._run._explained import explained
from ...random import Key, split
from ...random._reuse import consume, unchecked
from ..losses._elbo import check_chunk_size
from ..svi._progress import LOGGER
from ._diagnostics import report
from ._draws import Draws
from ._kernel import GradientKernel, chains_of, check_count, positive, states_of
from ._moves import Walk, goes
from ._potential import Layout
from ._progress import ChainProgress
from ._result import MCMCResult
from ._state import Chains, MCMCState, Plan
from ._warmup import schedule, waits

P = ParamSpec("P")
T = TypeVar("T")

# From so many transitions on a run is compiled.
_WORTHWHILE = 1_000
# Of fewer draws a chain nothing can be told.
_TELLING = 4
# How many turns are taken between two looks at the chains.
_TURNS = 512
# How many elements the slots may have, which each turn of a compiled loop copies.
_SLOTS = 8_192


def _check_kernel(_: object, __: object, kernel: object) -> None:
    if not isinstance(kernel, GradientKernel):
        raise DeclarationError(
            f"MCMC got {describe(kernel)}, which is no kernel. Write for example "
            "MCMC(NUTS(model), num_warmup=1000, num_samples=1000)."
        )


def _not_negative(_: object, field: attrs.Attribute[int], value: object) -> None:
    check_count(value, field.name, least=0)


@attrs.frozen(getstate_setstate=False)
class MCMC(Carried, Generic[P]):
    """Runs chains of a kernel: warm-up, then draws.

    Chain ``i`` is the run of ``fold_in(key, i)``, however many chains there are: bit for bit in
    eager mode, and compiled within one ``chunk_size``, to which chains are padded; compiled at
    another width to rounding, which trajectories amplify. (Torch's matrix products may round
    differently for other numbers of chains; and ``ChEES`` learns from all chains together.)
    Chains never wait for each other: one that ends its trajectory begins the next.

    Attributes:
        kernel: ``NUTS(model)``, ``HMC(model)`` or another.
        num_warmup: How many transitions adapt step size and mass matrix; they are not kept.
        num_samples: How many draws each chain gives.
        num_chains: How many chains.
        thinning: Of so many transitions one is kept; ``num_samples`` counts those kept.
        chunk_size: How many chains run as one; ``None``: all.
        compiled: Whether to compile the turns (see ``purepyro.jit``; the first time that takes
            seconds). ``None``: if a chain has 1,000 transitions or more, and the model can be
            traced; if not, the logger ``purepyro.infer`` says why.
        progress_bar: Whether to show one; by default if a terminal looks on. Without it, lines go
            to the logger ``purepyro.infer``, at the level INFO.

    Source: ``numpyro.infer.MCMC``; Dance, Glaser, Orbanz and Adams 2025, "Efficiently Vectorized
    MCMC on Modern Accelerators".

    Examples:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import MCMC, NUTS
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> mcmc = MCMC(NUTS(model), num_warmup=100, num_samples=100, num_chains=4)
        >>> result = mcmc.run(random.key(0), torch.tensor([1.0, 2.0, 3.0]))
        >>> bool((result.samples["loc"].mean() - 2.0).abs() < 0.2)
        True
    """

    kernel: GradientKernel[P, Any] = attrs.field(validator=_check_kernel)
    num_warmup: int = attrs.field(converter=as_int, validator=_not_negative)
    num_samples: int = attrs.field(converter=as_int, validator=positive)
    num_chains: int = attrs.field(default=1, converter=as_int, validator=positive)
    thinning: int = attrs.field(default=1, kw_only=True, converter=as_int, validator=positive)
    chunk_size: int | None = attrs.field(
        default=None, kw_only=True, converter=as_int_or_none, validator=check_chunk_size
    )
    compiled: bool | None = attrs.field(default=None, kw_only=True)
    progress_bar: bool | None = attrs.field(default=None, kw_only=True)

    @intact
    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> MCMCState:
        """All chains before their first transition, with the warm-up planned.

        Raises:
            DeclarationError, MissingNameError, SupportError: as ``kernel.init``.
        """
        consume(key, "MCMC.init")
        with unchecked():
            keys = split(key, self.num_chains)
            states = self._begun(keys, args, kwargs)
        plan = schedule(self.num_warmup).to(states.transition.device)
        adaptation = states.adaptation._replace(schedule=plan.repeat(self.num_chains, 1))
        return states._replace(adaptation=adaptation)

    def run(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> MCMCResult:
        """Initialise from ``key``, warm up, and draw."""
        return self.run_from(self.init(key, *args, **kwargs), self.num_samples, *args, **kwargs)

    @intact
    def run_from(
        self, state: MCMCState, num_samples: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> MCMCResult:
        """Go on from a state, of another run or of a checkpoint; a warm-up is first ended.

        Args:
            state: The chains, along a first dimension.
            num_samples: How many draws each is to give.
            *args: Arguments of the model.
            **kwargs: The same, by name.
        """
        count = check_count(num_samples, "num_samples")
        if self.chunk_size is not None and self.kernel.learns_together:
            raise DeclarationError(
                f"MCMC has chunk_size={self.chunk_size}, but {type(self.kernel).__name__} learns "
                "from all chains together, so they have to run as one. Leave chunk_size out."
            )
        _require_stacked(state)
        if self._compiles(state, count):
            try:
                return self._run(state, count, args, kwargs, compiled=True)
            except Exception as error:  # an error of the model's own comes again
                if self.compiled:
                    raise
                LOGGER.warning(
                    "MCMC: the turns of this run are not compiled. %s: %s",
                    type(error).__name__,
                    error,
                )
        return self._run(state, count, args, kwargs, compiled=False)

    def _begun(self, keys: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> MCMCState:
        """A state for each key."""
        kernel: Any = self.kernel
        potential = kernel.potential

        def first(key: Tensor) -> dict[str, Tensor]:
            start: dict[str, Tensor] = potential.attempt(Key(key), 0, *args, **kwargs)
            return start

        with explained():
            positions = torch.vmap(first)(keys)
            potential.check(mapped(lambda leaf: leaf[0], positions), *args, **kwargs)
            good = torch.vmap(lambda each: potential.is_finite(each, *args, **kwargs))(positions)
        bad = (~good).nonzero().flatten().tolist()
        for i in bad:
            other: dict[str, Tensor] = potential.init(keys[i], *args, **kwargs)
            for name, value in other.items():
                positions[name] = torch.cat(
                    [positions[name][:i], value.unsqueeze(0), positions[name][i + 1 :]]
                )
        states: MCMCState = kernel.begun_all(keys, positions, *args, **kwargs)
        return states

    def _compiles(self, state: MCMCState, count: int) -> bool:
        length = int(state.adaptation.schedule[:, 0].max()) + count * self.thinning
        wanted = length >= _WORTHWHILE if self.compiled is None else self.compiled
        return wanted and is_enabled() and not is_transforming()

    def _run(
        self,
        state: MCMCState,
        count: int,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        compiled: bool,
    ) -> MCMCResult:
        layout = Layout.of(state.position, batch=1)
        chains = chains_of(state, layout)
        total = len(chains.transition)
        # Compiled, a chunk has its whole width also where there are fewer chains.
        size = self.chunk_size or total
        size = size if compiled else min(size, total)
        potential: Any = self.kernel.potential

        def constrain(positions: Tensor) -> dict[str, Tensor]:
            def one(position: Tensor) -> dict[str, Tensor]:
                sites: dict[str, Tensor] = potential.sites(layout.unflat(position), *args, **kwargs)
                return sites

            with torch.no_grad(), explained():
                return torch.vmap(one)(positions)

        warm = chains.adaptation.schedule[:, 0]
        first = torch.maximum(chains.transition, warm)
        end = first + count * self.thinning
        plan = Plan(end, first, torch.full_like(first, self.thinning))
        moves = int((end - chains.transition).sum())
        after: list[Chains] = []
        parts: list[Draws] = []
        with ChainProgress[Any](moves, self.progress_bar) as progress:
            for start in range(0, total, size):
                # The last chunk is padded, so that all are alike.
                index = torch.arange(start, start + size).clamp(max=total - 1)
                real = min(size, total - start)
                draws = Draws(real, count, constrain)
                walk = self.kernel.walk(
                    taken(chains, index), _slots(layout, size), taken(plan, index)
                )
                walk = self._walked(walk, layout, args, kwargs, draws, progress, compiled=compiled)
                after.append(taken(walk.chains, torch.arange(real)))
                parts.append(draws)
        ended = mapped(lambda *leaves: torch.cat(leaves), *after)
        samples = [part.samples() for part in parts]
        infos = mapped(lambda *leaves: torch.cat(leaves), *[part.stats() for part in parts])
        values = mapped(lambda *leaves: torch.cat(leaves), *samples)
        stats = dict(sorted(infos._asdict().items()))
        depth = getattr(self.kernel, "max_tree_depth", None)
        warnings = tuple(report(values, stats, depth)) if count >= _TELLING else ()
        for text in warnings:
            LOGGER.warning("MCMC: %s", text)
        return MCMCResult(states_of(ended, layout), values, stats, warnings)

    def _walked(
        self,
        walk: Walk[T],
        layout: Layout,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        draws: Draws,
        progress: ChainProgress[T],
        *,
        compiled: bool,
    ) -> Walk[T]:
        """Walk until all chains are at their end."""
        kernel: Any = self.kernel
        while bool((walk.chains.transition < walk.plan.end).any()):
            before = walk
            if compiled:
                walk = kernel.loop.take(walk, _TURNS, 0, (layout, *args), kwargs).state
            else:
                # So many that no slot is missing.
                for _ in range(walk.slots.info.shape[1]):
                    if not bool(goes(walk).any()):
                        break
                    walk = kernel.turn(layout, walk, *args, **kwargs)
            progress.advance(before, walk)
            draws.take(walk.slots)
            chains = walk.chains
            if bool(waits(chains).any()):
                chains = kernel.settled(chains, layout)
            empty = walk.slots._replace(filled=torch.zeros_like(walk.slots.filled))
            walk = walk._replace(chains=chains, slots=empty)
        return walk


def taken(tree: T, index: Tensor) -> T:
    """Some of the chains."""
    return mapped(lambda leaf: leaf.index_select(0, index.to(leaf.device)), tree)


def _slots(layout: Layout, chains: int) -> int:
    """How many draws a chain may have between two looks."""
    size = sum(layout.sizes) + 7
    return max(4, min(64, _SLOTS // (chains * size)))


def _require_stacked(state: MCMCState) -> None:
    if state.transition.ndim != 1:
        raise ShapeError(
            f"run_from got a state whose transition is {describe(state.transition)}, and the "
            "chains of a run come along a first dimension. Start from MCMC.init(key, *args), or "
            "from the state of an earlier result."
        )
