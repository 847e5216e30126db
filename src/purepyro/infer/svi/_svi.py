"""Stochastic variational inference as a pure state machine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import repeat
from typing import Generic, ParamSpec, get_args

import attrs
import torch
from torch import Tensor

from ..._compat._isolation import Intact, intact
from ..._compat._pyro import is_transforming
from ..._core._pickling import Carried
from ..._core._text import settings_of
from ..._core._types import Params, State
from ..._errors import DeclarationError, near
from ..._run._explained import explained
from ..._run._sites import Site
from ...random import Key, fold_in, name_key
from ...random._reuse import consume
from ..losses._elbo import ELBO, Trace_ELBO
from ._arguments import check_loss, check_optim, check_order, check_run, check_state
from ._compiled_run import Graphs, graphs_of, is_compiled
from ._diagnosis import diagnose
from ._gradients import without_gradient
from ._initialize import Start
from ._loop import Stepper, records, run_batches, run_from
from ._nonfinite import Batch, OnNonfinite, StepRecord
from ._optimizers import Optimizer, PerParameter, check_optimizer, counted
from ._patterns import as_patterns, require_matches
from ._state import SVIRecord, SVIRunResult, SVIState
from ._steps import Gradients, descend, gradients, learnt_params, loss_and_buffers, loss_of_learnt

P = ParamSpec("P")


def _as_optimizer(optim: Optimizer | Mapping[str, Optimizer]) -> Optimizer:
    if isinstance(optim, Mapping):
        return PerParameter(tuple((name, counted(each)) for name, each in optim.items()))
    return counted(optim)


@attrs.frozen(repr=False, getstate_setstate=False)
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
        callback: Called by runs with an ``SVIRecord`` after each step; a true result stops the
            run.
        progress_bar: Whether runs show one; by default if a terminal looks on. Without it, lines go
            to the logger ``purepyro.infer``, at the level INFO.
        compiled: Whether runs compile their steps (see ``purepyro.jit``; the first time that takes
            seconds). ``None``: if they take 1,000 steps or more, and the model can be traced; if
            not, the logger ``purepyro.infer`` says why.
            ``run`` then takes whole blocks of steps without Python in between, and looks at the
            losses between blocks; with a ``callback``, and in ``fit``, it takes single ones.

    Source: ``pyro.infer.SVI``, with the functional shape of NumPyro's.

    Examples:
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

    def __repr__(self) -> str:
        return settings_of(self)

    def __attrs_post_init__(self) -> None:
        check_optim(self.optim)
        check_loss(self.loss)
        check_order(self.model, self.guide)
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
        learnt = learnt_params(self, params)
        opt_state = self.optim.init(learnt)
        check_optimizer(self.optim, opt_state, learnt)
        step = torch.zeros_like(key[0])  # under vmap one for each member, as the key is
        state = SVIState(params, opt_state, key, step, buffers)
        self._warn_of_unread(state, batch)
        return state

    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of the optimiser; returns the new state and the loss before the step."""
        check_state(state, "step")
        with (guard := Intact()), guard, explained():
            return descend(self, state, gradients(self, state, *args, **kwargs))

    @intact
    def evaluate(self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The loss at ``state``, with the noise of its next step."""
        check_state(state, "evaluate")
        key = fold_in(state.key, state.step)
        with torch.no_grad():
            return loss_and_buffers(self, state.params, key, state.buffers, args, kwargs)[0]

    def run(self, key: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs) -> SVIRunResult:
        """Initialise from ``key`` and take ``num_steps`` steps, or fewer if ``callback`` says so.

        Raises:
            SupportError: if a loss is not finite, unless ``on_nonfinite`` is set; it names the site
                whose value, density or gradient went bad.
        """
        num_steps = check_run(key, num_steps)
        return self.run_from(self.init(key, *args, **kwargs), num_steps, *args, **kwargs)

    def run_from(
        self, state: SVIState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> SVIRunResult:
        """``run()``, going on from a state: of another run, or of a checkpoint."""
        check_state(state, "run_from")
        with (guard := Intact()), guard:
            return run_from(self._stepper(), state, num_steps, Batch(args, kwargs))

    def iterate(self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[SVIRecord]:
        """Steps without end, to be stopped by ``break``; one ``SVIRecord`` for each."""
        check_state(state, "iterate")
        return records(self._stepper(), state, repeat(Batch(args, kwargs)))

    @intact
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

        Examples:
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
        return run_batches(self._stepper(), key, None, batches, data_size, epochs)

    @intact
    def fit_from(
        self,
        state: SVIState,
        batches: Iterable[object],
        /,
        *,
        data_size: int | None,
        epochs: int = 1,
    ) -> SVIRunResult:
        """``fit()``, going on from a state."""
        check_state(state, "fit_from")
        return run_batches(self._stepper(), state.key, state, batches, data_size, epochs)

    def _stepper(self) -> Stepper:
        """What the loops know of this fit."""
        raises = self.on_nonfinite == "raise"
        return Stepper(
            init=self.init,
            step=self.step,
            look=self._model_sites,
            explain=self._explain if raises else None,
            graphs=lambda steps: self._graphs if self._compiles(steps) else None,
            must_compile=self.compiled is True,
            callback=self.callback,
            progress_bar=self.progress_bar,
        )

    @cached_property  # of attrs, which has no lock
    def _graphs(self) -> Graphs:
        # What the callback does is no part of a step.
        return graphs_of(attrs.evolve(self, callback=None).step)

    @property
    def _start(self) -> Start:
        sums_out = getattr(self.loss, "sums_out", True)
        return Start(self.model, self.guide, sums_out, self.on_nonfinite)

    def _require_known(self, params: Params) -> None:
        require_matches(self.frozen, params, "SVI(frozen=...)")

    def _warn_of_unread(self, state: SVIState, batch: Batch) -> None:
        """Warn of parameters that the loss does not depend on, which would never move."""
        if is_transforming():
            return
        loss = loss_of_learnt(self, state, *batch)
        unread = without_gradient(loss, learnt_params(self, state.params))
        if unread:
            warnings.warn(
                f"The loss does not depend on the parameters {unread}, so they keep their starting "
                "values. Nothing in model or guide computes with them on these arguments, or what "
                "does hides them (.detach(), torch.no_grad(), .item()). Remove them, or list them "
                "in SVI(..., frozen=[...]) if that is meant.",
                UserWarning,
                stacklevel=4,
            )

    def _model_sites(self, key: Key, state: SVIState | None, batch: Batch) -> Mapping[str, Site]:
        """The sites of the model, to check their scales; before the first step at its start."""
        if state is not None:
            params = state.params
        else:
            params, _ = self._start.values(name_key(key, "init"), batch)
        with torch.no_grad():
            return self._start.look(params, name_key(key, "check"), batch)[0]

    # To be deleted: what distributed and ensemble still call.

    def _explain(
        self, now: StepRecord[SVIState], previous: StepRecord[SVIState] | None
    ) -> str | None:
        return diagnose(self, now, previous)

    def _compiles(self, steps: int | None) -> bool:
        return is_compiled(self.compiled, steps)

    def _gradients(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Tensor, Params, State]:
        return gradients(self, state, *args, **kwargs)

    def _descended(
        self, state: SVIState, value: Tensor, found: Params, buffers: State
    ) -> tuple[SVIState, Tensor]:
        return descend(self, state, Gradients(value, found, buffers))

    def _look(
        self, params: Params, key: Key, batch: Batch
    ) -> tuple[Mapping[str, Site], Mapping[str, Site]]:
        return self._start.look(params, key, batch)

    def _fit(
        self,
        key: Key,
        state: SVIState | None,
        batches: Iterable[object],
        data_size: int | None,
        epochs: int,
    ) -> SVIRunResult:
        return run_batches(self._stepper(), key, state, batches, data_size, epochs)
