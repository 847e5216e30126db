"""The steps of a fit whose gradients are averaged over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from .._compat._thread_state import intact
from .._compat._transforms import is_transforming
from .._compile._jit import jit
from .._errors import PurepyroError, ShapeError, TraceError
from ..ensemble._failed import without_checks
from ..infer import SVI, SVIRunResult, SVIState
from ..infer.svi._arguments import check_count, check_state
from ..infer.svi._diagnosis import diagnose
from ..infer.svi._loop import Stepper, run_batches, run_from
from ..infer.svi._minibatches import Rows, rows_of
from ..infer.svi._nonfinite import Batch, StepRecord
from ..infer.svi._steps import Gradients, descend, gradients
from ..infer.svi._svi import stepper_of
from ..random import Key
from ._communicator import Communicator
from ._consistency import of_leaves, of_shapes, require_alike, shown_key


class Halves(NamedTuple):
    """The two halves of a step, between which the ranks average their gradients.

    Attributes:
        gradients: From a state and this rank's rows to the loss and its gradients.
        descend: From a state and the mean over ranks to the next state, and the loss.
    """

    gradients: Callable[..., Gradients]
    descend: Callable[..., tuple[SVIState, Tensor]]


def halves_of(svi: SVI[...]) -> Halves:
    """The halves of the steps of ``svi``.

    Values that are not finite raise nothing here, since they must come to all ranks alike.
    """
    return Halves(partial(gradients, without_checks(svi)), partial(descend, svi))


def compiled_halves_of(svi: SVI[...]) -> Halves:
    """The same, each compiled."""
    halves = halves_of(svi)
    return Halves(jit(halves.gradients), jit(halves.descend))


def mean_over_ranks(ranks: Communicator, weight: float, own: Gradients) -> Gradients:
    """The weighted mean of loss, gradients and buffers, the same to the bit on all ranks.

    All tensors of a dtype and device travel as one. Integer buffers, such as counts of batches, are
    the same on all ranks already.

    Args:
        ranks: Connects them.
        weight: This rank's weight.
        own: What this rank has found.
    """
    total = ranks.begin_step(weight)
    floating = [name for name, buffer in own.buffers.items() if buffer.is_floating_point()]
    leaves = [own.loss, *own.by_name.values(), *(own.buffers[name] for name in floating)]
    means = list(leaves)
    for kind in dict.fromkeys((leaf.dtype, leaf.device) for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if (leaf.dtype, leaf.device) == kind]
        weighted = torch.cat([leaves[i].flatten() * weight for i in places])
        sums = torch.split(ranks.sum(weighted), [leaves[i].numel() for i in places])
        for i, part in zip(places, sums, strict=True):
            means[i] = (part / total).reshape(leaves[i].shape)
    split = 1 + len(own.by_name)
    buffers = {**own.buffers, **dict(zip(floating, means[split:], strict=True))}
    return Gradients(means[0], dict(zip(own.by_name, means[1:split], strict=True)), buffers)


@attrs.frozen
class ParallelFit:
    """A fit each of whose steps is one of all ranks together.

    Attributes:
        svi: The fit of one process.
        ranks: Connects them.
        halves: The halves of its steps.
        data_size: How many rows all ranks have together; ``None``: do not check.
    """

    svi: SVI[...]
    ranks: Communicator
    halves: Halves
    data_size: int | None

    def init(self, key: Key, /, *args: Any, **kwargs: Any) -> SVIState:
        """The state before the first step, the same on all ranks."""
        state = self.svi.init(key, *args, **kwargs)
        require_alike(
            self.ranks,
            {
                "call": "DataParallel.init",
                "key": shown_key(key),
                **of_shapes(args, kwargs),
                **of_leaves("start", state.params),
            },
        )
        self._check_rows(state, Batch(args, kwargs))
        return state

    def step(self, state: SVIState, /, *args: Any, **kwargs: Any) -> tuple[SVIState, Tensor]:
        """One step of all ranks together."""
        if is_transforming():
            raise TraceError(
                "DataParallel.step is called inside vmap, grad or jit, where ranks cannot meet in "
                "the middle of a step. Call it outside; for many members take Sharded(Ensemble(svi"
                "))."
            )
        check_state(state, "step")
        try:
            own = self.halves.gradients(state, *args, **kwargs)
        except PurepyroError:
            raise
        except ValueError as error:
            # The loop would take the last steps again to diagnose it, which the others will not.
            name = self.ranks.names([self.ranks.rank])
            self.ranks.fail(
                f"{name} failed in a step: {error} The others cannot take it without its rows. "
                "Look at the data of that rank."
            )
        weight = float(rows_of(Batch(args, kwargs)) or 1)
        return self.halves.descend(state, mean_over_ranks(self.ranks, weight, own))

    @intact
    def run_from(self, state: SVIState, num_steps: int, batch: Batch) -> SVIRunResult:
        """Steps on the same rows, from a state that is the same on all ranks."""
        num_steps = check_count(num_steps, "num_steps")
        check_state(state, "run_from")
        require_alike(
            self.ranks,
            {
                "call": "DataParallel.run",
                "num_steps": str(num_steps),
                **of_shapes(*batch),
                **of_leaves("state", state),
            },
        )
        self._check_rows(state, batch)
        return run_from(self._stepper(), state, num_steps, batch)

    @intact
    def run_batches(
        self, key: Key, state: SVIState | None, batches: Iterable[object], epochs: int
    ) -> SVIRunResult:
        """A step for each batch, from a state or, without one, from the key."""
        return run_batches(self._stepper(), key, state, batches, self.data_size, epochs)

    def _stepper(self) -> Stepper:
        """What the loops know of this fit; its halves are compiled, not its steps."""
        return attrs.evolve(
            stepper_of(self.svi),
            init=self.init,
            step=self.step,
            explain=self._explain if self.svi.on_nonfinite == "raise" else None,
            graphs=lambda _: None,
            progress_bar=False if self.ranks.rank else self.svi.progress_bar,
        )

    def _explain(
        self, now: StepRecord[SVIState], previous: StepRecord[SVIState] | None
    ) -> str | None:
        """Why a step has no finite loss: a rank whose rows are to blame knows."""
        reasons = self.ranks.exchange(diagnose(self.svi, now, previous))
        for rank, reason in enumerate(reasons):
            if reason is not None:
                every = all(other == reason for other in reasons)
                return reason if every else f"On {self.ranks.names([rank])}: {reason}"
        return None

    def _check_rows(self, state: SVIState, batch: Batch) -> None:
        """Refuse rows that are not scaled to the full data set, or are more than that."""
        if self.data_size is None:
            return
        look = stepper_of(self.svi).look
        Rows(self.data_size, (), lambda batch: look(state.key, state, batch)).check(batch)
        rows = [count or 0 for count in self.ranks.exchange(rows_of(batch))]
        if sum(rows) > self.data_size:
            raise ShapeError(
                f"The ranks have {' + '.join(map(str, rows))} = {sum(rows)} rows, but data_size is "
                f"{self.data_size}, so some rows would count twice. Give each rank rows of its "
                "own, such as x[rank::size], and the number of rows of the full data set."
            )
