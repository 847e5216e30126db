"""Stochastic variational inference as a pure state machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import cached_property
from itertools import chain, repeat
from typing import Any, Generic, NamedTuple, ParamSpec, get_args

import attrs
import torch
from torch import Tensor

from ..._compat._isolation import intact, unvalidated
from ..._compat._pyro import is_transforming
from ..._compile._jit import Jitted, is_enabled, jit
from ..._compile.scan._scan import Loop
from ..._core._pickling import Carried
from ..._core._trees import where
from ..._core._types import Params, State
from ..._core._whole_numbers import whole
from ..._errors import DeclarationError, OutOfRangeError, ShapeError, SupportError, describe, near
from ..._run._mapping import explained
from ..._run._sites import Site
from ...random import Key, fold_in, name_key, split
from ...random._reuse import consume
from ..losses._elbo import ELBO, LossOfParts, Trace_ELBO
from ._compiled_run import run_blocks
from ._gradients import value_and_gradients, without_gradient
from ._initialize import Start
from ._minibatches import Rows, epochs_of
from ._nonfinite import Batch, OnNonfinite, Suspects, Taken, Watch, all_finite, nonfinite_names
from ._optimizers import Optimizer, PerParameter, check_optimizer, counted, descend
from ._patterns import as_patterns, chosen, require_matches
from ._progress import Progress, not_compiled
from ._state import SVIRecord, SVIRunResult, SVIState

P = ParamSpec("P")


def _as_optimizer(optim: Optimizer | Mapping[str, Optimizer]) -> Optimizer:
    if isinstance(optim, Mapping):
        return PerParameter(tuple((name, counted(each)) for name, each in optim.items()))
    return counted(optim)


# From so many steps on a run is compiled.
_WORTHWHILE = 1_000


class Graphs(NamedTuple):
    """The compiled steps of an SVI: one by one, and in blocks."""

    step: Jitted[..., tuple[SVIState, Tensor]]
    loop: Loop[SVIState]


@attrs.frozen(getstate_setstate=False)
class SVI(Carried, Generic[P]):
    """Fits a guide to a model, by pure functions of an explicit state.

    Attributes:
        model: Any model that ``apply`` takes.
        guide: The same, with the same arguments, and a site for each latent one of the model.
        optim: A functional optimiser, such as ``torchopt.adam(1e-2)``; or several by pattern,
            ``{"scales.*": sgd, "*": adam}``, of which a parameter gets the first that matches.
        loss: What to minimise.
        frozen: Patterns of parameters that stay as they are, bit for bit, such as ``"scales.*"``.
            They have no optimiser state.
        on_nonfinite: What happens at a loss that is not finite. ``"raise"``: a run stops, and names
            the site where it began. ``"skip"``: the step is left out (also where only its gradient
            is not finite), the next one draws anew; under ``vmap``, for that member alone.
            ``"ignore"``: nothing. In steps with the last two, and in ``init`` with the last, Pyro's
            own checks of numbers are off, since these raise.
        callback: Called by runs with an :class:`SVIRecord` after each step; a true result stops the
            run.
        progress_bar: Whether runs show one; by default if a terminal looks on. Without it, lines go
            to the logger ``purepyro.infer``, at the level INFO.
        compiled: Whether runs compile their steps (see ``purepyro.jit``; the first time that takes
            seconds). ``None``: if they take 1,000 steps or more, and the model can be traced; if
            not, the logger ``purepyro.infer`` says why.
            ``run`` then takes whole blocks of steps without Python in between, and looks at the
            losses between blocks; with a ``callback``, and in ``fit``, it takes single ones.

    Source: ``pyro.infer.SVI``, with the functional shape of NumPyro's.

    Example:
        >>> import torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import SVI, AutoNormal
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> y = torch.tensor([1.0, 2.0, 3.0])
        >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        >>> state, losses = svi.run(random.key(0), 200, y)
        >>> bool((state.params["locs.loc"] - 2.0).abs() < 0.3), losses.shape
        (True, torch.Size([200]))
    """

    model: Callable[P, object]
    guide: Callable[P, object]
    optim: Optimizer = attrs.field(converter=_as_optimizer)
    loss: ELBO = attrs.field(factory=Trace_ELBO)
    frozen: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=as_patterns)
    on_nonfinite: OnNonfinite = attrs.field(default="raise", kw_only=True)
    callback: Callable[[SVIRecord], object] | None = attrs.field(default=None, kw_only=True)
    progress_bar: bool | None = attrs.field(default=None, kw_only=True)
    compiled: bool | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        optim = self.optim
        for each in (
            [o for _, o in optim.optimizers] if isinstance(optim, PerParameter) else [optim]
        ):
            if not callable(getattr(each, "init", None)) or isinstance(each, type):
                raise DeclarationError(
                    f"SVI got the optimiser {describe(each)}, which is no (init, update) pair, "
                    "so it could not be pure. Write for example torchopt.adam(1e-2)."
                )
        if self.on_nonfinite not in get_args(OnNonfinite):
            raise DeclarationError(
                f"on_nonfinite is {self.on_nonfinite!r}, which names nothing that could be done. "
                f"{near(str(self.on_nonfinite), get_args(OnNonfinite))}"
            )

    @intact
    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> SVIState:
        """The state before the first step; complete, so that it can be loaded into.

        Raises:
            MissingNameError: if the guide has no site for a latent one of the model, or a mapping
                of optimisers none for a parameter.
            UnknownNameError: if the guide has a site that the model does not, or a pattern matches
                no parameter.
            ShapeError: if the two differ in a site's shape.
            SupportError: if data or parameters are not numbers, unless these are ignored.
            DeclarationError: if the optimiser would change the structure of the state.
        """
        consume(key, "SVI.init")
        batch = Batch(args, kwargs)
        with explained():
            params, buffers = self._start.checked(key, batch, self._require_known)
        learnt = self._learnt(params)
        opt_state = self.optim.init(learnt)
        check_optimizer(self.optim, opt_state, learnt)
        step = torch.zeros_like(key[0])  # under vmap one for each member, as the key is
        state = SVIState(params, opt_state, key, step, buffers)
        self._warn_of_unread(state, batch)
        return state

    @intact
    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of the optimiser; returns the new state and the loss before the step."""
        with explained():
            return self._descended(state, *self._gradients(state, *args, **kwargs))

    def _gradients(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, Params, State]:
        """The loss of the next step, its gradient by what is learnt, and the buffers after it."""
        return value_and_gradients(
            self._loss_of_learnt(state, *args, **kwargs), self._learnt(state.params)
        )

    def _loss_of_learnt(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> Callable[[Params], tuple[Tensor, State]]:
        key = fold_in(state.key, state.step)

        def loss(learnt: Params) -> tuple[Tensor, State]:
            params = {**state.params, **learnt} if self.frozen else learnt
            return self._loss(params, key, state.buffers, *args, **kwargs)

        return loss

    def _descended(
        self, state: SVIState, value: Tensor, gradients: Params, buffers: State
    ) -> tuple[SVIState, Tensor]:
        """The state after a step along these gradients, and the loss ``value`` before it."""
        before = self._learnt(state.params)
        learnt, opt_state = descend(self.optim, gradients, state.opt_state, before)
        if self.on_nonfinite == "skip":
            good = all_finite((value, gradients, learnt))
            learnt = where(good, learnt, before)
            opt_state = where(good, opt_state, state.opt_state)
            buffers = where(good, buffers, state.buffers)
        params = {**state.params, **learnt} if self.frozen else learnt
        return SVIState(params, opt_state, state.key, state.step + 1, buffers), value

    @intact
    def evaluate(self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The loss at ``state``, with the noise of its next step."""
        key = fold_in(state.key, state.step)
        with torch.no_grad():
            return self._loss(state.params, key, state.buffers, *args, **kwargs)[0]

    def run(self, key: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs) -> SVIRunResult:
        """Initialise from ``key`` and take ``num_steps`` steps, or fewer if ``callback`` says so.

        Raises:
            SupportError: if a loss is not finite, unless ``on_nonfinite`` is set; it names the site
                whose value, density or gradient went bad.
        """
        num_steps = check_count(num_steps, "num_steps")
        return self.run_from(self.init(key, *args, **kwargs), num_steps, *args, **kwargs)

    @intact
    def run_from(
        self, state: SVIState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> SVIRunResult:
        """:meth:`run`, going on from a state: of another run, or of a checkpoint."""
        num_steps = check_count(num_steps, "num_steps")
        batch = Batch(args, kwargs)
        if self.callback is None and self._compiles(num_steps):
            try:
                return self._run_blocks(state, num_steps, batch)
            except (SupportError, OutOfRangeError):
                raise
            except Exception as error:  # an error of the model's own comes again
                if self.compiled:
                    raise
                not_compiled(error)
                eager = attrs.evolve(self, compiled=False)
                return eager._collect(state, repeat(batch, num_steps), num_steps)
        return self._collect(state, repeat(batch, num_steps), num_steps)

    def iterate(self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[SVIRecord]:
        """Steps without end, to be stopped by ``break``; one :class:`SVIRecord` for each."""
        return self._records(state, repeat(Batch(args, kwargs)))

    def fit(
        self, key: Key, batches: Iterable[object], /, *, data_size: int | None, epochs: int = 1
    ) -> SVIRunResult:
        """Initialise from ``key`` on the first batch, and take a step for each batch.

        A batch stands for the whole data set, so the model must scale it, by
        ``pyro.plate("data", data_size, subsample_size=len(x))``. This is checked. Where rows have
        latent sites of their own: ``subsample=index``, in the model and a guide written by hand.

        Args:
            key: The key of the run.
            batches: For each step a tuple or list of the model's arguments, a mapping of arguments
                by name, or one argument. The rows of a batch are those of its first tensor.
            data_size: How many rows the full data set has. ``None``: do not check, the scale is
                right already.
            epochs: How often to go through ``batches``.

        Raises:
            ShapeError: if a batch is empty, an epoch has more rows than ``data_size``, or an
                observed site is not scaled to it.

        Example:
            >>> import torch, torchopt, pyro, pyro.distributions as dist
            >>> from purepyro import random
            >>> from purepyro.infer import SVI, AutoNormal
            >>> def model(y):
            ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
            ...     with pyro.plate("data", 100, subsample_size=len(y)):
            ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
            >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
            >>> batches = torch.linspace(0.0, 4.0, 100).split(20)
            >>> svi.fit(random.key(0), batches, data_size=100, epochs=2).losses.shape
            torch.Size([10])
        """
        return self._fit(key, None, batches, data_size, epochs)

    def fit_from(
        self,
        state: SVIState,
        batches: Iterable[object],
        /,
        *,
        data_size: int | None,
        epochs: int = 1,
    ) -> SVIRunResult:
        """:meth:`fit`, going on from a state."""
        return self._fit(state.key, state, batches, data_size, epochs)

    @intact
    def _fit(
        self,
        key: Key,
        state: SVIState | None,
        batches: Iterable[object],
        data_size: int | None,
        epochs: int,
    ) -> SVIRunResult:
        epochs = check_count(epochs, "epochs")

        def look(batch: Batch) -> Mapping[str, Site]:
            if state is not None:
                params = state.params
            else:
                params, _ = self._start.values(name_key(key, "init"), batch)
            with torch.no_grad():
                return self._look(params, name_key(key, "check"), batch)[0]

        rows = Rows(data_size, batches, look)

        def checked() -> Iterator[Batch]:
            for epoch in epochs_of(batches, epochs):
                rows.start_epoch()
                for batch in epoch:
                    rows.check(batch)
                    yield batch

        stream = checked()
        if state is None:
            start = next(stream, None)
            if start is None:
                raise ShapeError(
                    "There is no batch to initialise from, so the parameters' shapes are not "
                    "known. Pass at least one batch and one epoch; an iterator that was used "
                    "before has none left."
                )
            init: Callable[..., SVIState] = self.init
            state = init(key, *start.args, **start.kwargs)
            stream = chain((start,), stream)
        total = len(batches) * epochs if isinstance(batches, Sized) else None
        return self._collect(state, stream, total)

    def _compiles(self, steps: int | None) -> bool:
        """Whether to compile a run of so many steps, as far as that is known."""
        wanted = (steps or 0) >= _WORTHWHILE if self.compiled is None else self.compiled
        return wanted and is_enabled() and not is_transforming()

    @cached_property  # of attrs, which has no lock
    def _graphs(self) -> Graphs:
        # What the callback does is no part of a step.
        step: Callable[..., tuple[SVIState, Tensor]] = attrs.evolve(self, callback=None).step
        return Graphs(jit(step), Loop(step))

    def _run_blocks(self, state: SVIState, num_steps: int, batch: Batch) -> SVIRunResult:
        explain = self._explain if self.on_nonfinite == "raise" else None
        with Progress(num_steps, self.progress_bar) as progress:
            at = int(state.step)
            loop = self._graphs.loop
            return SVIRunResult(*run_blocks(loop, state, num_steps, at, batch, progress, explain))

    def _collect(
        self, state: SVIState, batches: Iterable[Batch], total: int | None
    ) -> SVIRunResult:
        losses: list[Tensor] = []
        with Progress(total, self.progress_bar) as progress:
            for record in self._records(state, batches, total):
                state = record.state
                losses.append(record.loss)
                progress.advance(1, record.loss)
                if self.callback is not None and self.callback(record):
                    break
        return SVIRunResult(state, torch.stack(losses) if losses else torch.zeros(0))

    def _records(
        self, state: SVIState, batches: Iterable[Batch], total: int | None = None
    ) -> Iterator[SVIRecord]:
        step = self._stepping(total)
        # Under vmap there is no loss to read.
        watched = self.on_nonfinite == "raise" and not is_transforming()
        watch = Watch(step, self._explain) if watched else None
        before = state
        for count, batch in enumerate(batches, start=1):
            before = state
            if watch is not None:
                state, loss = watch.step(state, batch)
            else:
                state, loss = step(state, *batch.args, **batch.kwargs)
            yield SVIRecord(count, state, loss)
        if watch is not None:
            watch.end(before, state)

    def _stepping(self, total: int | None) -> Callable[..., tuple[SVIState, Tensor]]:
        """The step of a run: compiled, until it turns out that it cannot be."""
        step: Callable[..., tuple[SVIState, Tensor]] = self.step
        if not self._compiles(total):
            return step
        compiled = self._graphs.step
        if self.compiled:
            return compiled
        works = True

        def trying(state: SVIState, *args: Any, **kwargs: Any) -> tuple[SVIState, Tensor]:
            nonlocal works
            if works:
                try:
                    return compiled(state, *args, **kwargs)
                except Exception as error:  # an error of the model's own comes again
                    works = False
                    not_compiled(error)
            return step(state, *args, **kwargs)

        return trying

    def _loss(
        self, params: Params, key: Key, buffers: State, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, State]:
        """The loss, and the buffers after its runs."""
        if self.on_nonfinite == "raise":
            return self._plain_loss(params, key, buffers, *args, **kwargs)
        try:
            with unvalidated():
                return self._plain_loss(params, key, buffers, *args, **kwargs)
        except SupportError:
            # A value outside its support has no density.
            nan = sum(
                (value.sum() * torch.nan for value in params.values()), torch.tensor(torch.nan)
            )
            return nan, buffers

    def _plain_loss(
        self, params: Params, key: Key, buffers: State, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, State]:
        if isinstance(self.loss, LossOfParts) and buffers:
            return self.loss.loss_with_state(
                self.model, self.guide, params, key, buffers, *args, **kwargs
            )
        return self.loss.loss(self.model, self.guide, params, key, *args, **kwargs), buffers

    def _warn_of_unread(self, state: SVIState, batch: Batch) -> None:
        """Warn of parameters that the loss does not depend on, which would never move."""
        if is_transforming():
            return
        learnt = self._learnt(state.params)
        loss: Callable[..., Callable[[Params], tuple[Tensor, State]]] = self._loss_of_learnt
        unread = without_gradient(loss(state, *batch.args, **batch.kwargs), learnt)
        if unread:
            warnings.warn(
                f"The loss does not depend on the parameters {unread}, so they keep their starting "
                "values. Nothing in model or guide computes with them on these arguments, or what "
                "does hides them (.detach(), torch.no_grad(), .item()). Remove them, or list them "
                "in SVI(..., frozen=[...]) if that is meant.",
                UserWarning,
                stacklevel=4,
            )

    def _learnt(self, params: Params) -> Params:
        if not self.frozen:
            return params
        frozen = chosen(self.frozen, tuple(params))
        return {name: value for name, value in params.items() if name not in frozen}

    def _look(
        self, params: Params, key: Key, batch: Batch
    ) -> tuple[Mapping[str, Site], Mapping[str, Site]]:
        """The sites of model and guide."""
        return self._start.look(params, key, batch)

    @property
    def _start(self) -> Start:
        sums_out = getattr(self.loss, "sums_out", True)
        return Start(self.model, self.guide, sums_out, self.on_nonfinite)

    def _require_known(self, params: Params) -> None:
        require_matches(self.frozen, params, "SVI(frozen=...)")

    def _explain(self, now: Taken[SVIState], previous: Taken[SVIState] | None) -> str | None:
        """Why a step of a run has no finite loss."""
        suspects, state = Suspects(self.model, self.guide), now.before
        step = int(state.step)
        bad = nonfinite_names(state.params)
        if not bad:
            fault = suspects.fault(state.params, self._keys(state), now.batch)
            if fault is None:
                return None
            return f"Step {step} has no finite loss: {fault}. {_ADVICE}"
        if previous is None:
            return f"The parameters {bad} are not finite before step {step}. {_ADVICE}"
        before = previous.before
        fault = suspects.gradient_fault(before.params, self._keys(before), previous.batch)
        reason = fault or "the step is too long, or the optimiser's state overflowed"
        return f"Step {step - 1} made the parameters {bad} not finite: {reason}. {_ADVICE}"

    def _keys(self, state: SVIState) -> list[Key]:
        """The key of each particle of the state's next step."""
        key, particles = fold_in(state.key, state.step), getattr(self.loss, "num_particles", 1)
        if particles == 1:
            return [key]
        return [Key(each) for each in split(key, particles)]


_ADVICE = (
    "Look at the data and the priors there, or take shorter steps; SVI(..., on_nonfinite='skip') "
    "leaves such steps out."
)


def check_count(count: object, name: str) -> int:
    """A number of steps or epochs as a plain int; refuse one that is no number."""
    number = whole(count, 0)
    if number is None:
        raise ShapeError(
            f"{name} is {describe(count)}, and a run takes a whole number of steps, forward. Give "
            f"an int {name} >= 0."
        )
    return number
