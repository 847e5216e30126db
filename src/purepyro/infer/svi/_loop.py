"""The loops around a step: a given number of steps, a step for each batch, steps without end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import chain, repeat
from typing import Any

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import is_transforming
from ..._errors import OutOfRangeError, ShapeError, SupportError
from ..._run._sites import Site
from ...random import Key
from ._arguments import check_count
from ._compiled_run import Graphs, run_blocks
from ._minibatches import Rows, epochs_of
from ._nonfinite import Batch, Explain, LossMonitor
from ._progress import Progress, not_compiled
from ._state import SVIRecord, SVIRunResult, SVIState


@attrs.frozen(kw_only=True)
class Stepper:
    """What a loop needs to know of a fit.

    Attributes:
        init: From a key and arguments to the state before the first step.
        step: From a state and arguments to the next state, and the loss before it.
        look: The sites of the model on a batch, to check their scales; from the key of the fit and
            the state, which is ``None`` before the first step.
        explain: Says why a step has no finite loss, which is then an error. ``None``: losses are
            not read.
        graphs: The compiled steps for a run of so many; ``None`` to stay eager.
        must_compile: Whether a step that cannot be compiled is an error.
        callback: Is told of each step; a true result ends the run.
        progress_bar: Whether to show one; ``None``: if a terminal looks on.
    """

    init: Callable[..., SVIState]
    step: Callable[..., tuple[SVIState, Tensor]]
    look: Callable[[Key, SVIState | None, Batch], Mapping[str, Site]]
    explain: Explain[SVIState] | None
    graphs: Callable[[int | None], Graphs | None] = attrs.field(default=lambda _: None)
    must_compile: bool = False
    callback: Callable[[SVIRecord], object] | None = None
    progress_bar: bool | None = None


def run_from(stepper: Stepper, state: SVIState, num_steps: int, batch: Batch) -> SVIRunResult:
    """So many steps on the same arguments."""
    num_steps = check_count(num_steps, "num_steps")
    graphs = stepper.graphs(num_steps) if stepper.callback is None else None
    if graphs is not None:
        try:
            with Progress(num_steps, stepper.progress_bar) as progress:
                return SVIRunResult(
                    *run_blocks(
                        *(graphs.loop, state, num_steps, int(state.step), batch, progress),
                        stepper.explain,
                    )
                )
        except (SupportError, OutOfRangeError):
            raise
        except Exception as error:  # an error of the model's own comes again
            if stepper.must_compile:
                raise
            not_compiled(error)
            stepper = attrs.evolve(stepper, graphs=lambda _: None)
    return take_steps(stepper, state, repeat(batch, num_steps), num_steps)


def run_batches(
    stepper: Stepper,
    key: Key,
    state: SVIState | None,
    batches: Iterable[object],
    data_size: int | None,
    epochs: int,
) -> SVIRunResult:
    """A step for each batch, in each epoch.

    Args:
        stepper: The fit.
        key: Its key.
        state: The state to start from; ``None``: ``init`` on the first batch.
        batches: The batches of one epoch, see ``SVI.fit()``.
        data_size: How many rows the full data set has; ``None``: do not check scales.
        epochs: How often to go through them.
    """
    epochs = check_count(epochs, "epochs")

    rows = Rows(data_size, batches, lambda batch: stepper.look(key, state, batch))

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
        state = stepper.init(key, *start.args, **start.kwargs)
        stream = chain((start,), stream)
    total = len(batches) * epochs if isinstance(batches, Sized) else None
    return take_steps(stepper, state, stream, total)


def take_steps(
    stepper: Stepper, state: SVIState, batches: Iterable[Batch], total: int | None
) -> SVIRunResult:
    """A step for each batch, one by one; ``total`` is how many these are, if that is known."""
    losses: list[Tensor] = []
    with Progress(total, stepper.progress_bar) as progress:
        for record in records(stepper, state, batches, total):
            state = record.state
            losses.append(record.loss)
            progress.advance(1, record.loss)
            if stepper.callback is not None and stepper.callback(record):
                break
    return SVIRunResult(state, torch.stack(losses) if losses else torch.zeros(0))


def records(
    stepper: Stepper, state: SVIState, batches: Iterable[Batch], total: int | None = None
) -> Iterator[SVIRecord]:
    """The same as a generator of records."""
    step = _step_of(stepper, total)
    # Under vmap there is no loss to read.
    watched = stepper.explain is not None and not is_transforming()
    monitor = LossMonitor(step, stepper.explain) if watched and stepper.explain else None
    before = state
    for count, batch in enumerate(batches, start=1):
        before = state
        if monitor is not None:
            monitor.before_step(state, batch)
        try:
            state, loss = step(before, *batch.args, **batch.kwargs)
        except ValueError as error:  # torch and Pyro refuse values by these
            if monitor is not None:
                monitor.explain_error(before, error)
            raise
        if monitor is not None:
            monitor.after_step(before, loss)
        yield SVIRecord(count, state, loss)
    if monitor is not None:
        monitor.end(before, state)


def _step_of(stepper: Stepper, total: int | None) -> Callable[..., tuple[SVIState, Tensor]]:
    """The step of a run: compiled, until it turns out that it cannot be."""
    step, graphs = stepper.step, stepper.graphs(total)
    if graphs is None or stepper.must_compile:
        return step if graphs is None else graphs.step
    compiled, works = graphs.step, True

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
