"""A loss that is not finite: what may happen, and how a run finds the step where it began."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..._core._trees import tensors_in
from ..._core._types import Params
from ..._errors import DuplicateSiteError, ShapeError, SupportError

OnNonfinite: TypeAlias = Literal["raise", "skip", "ignore"]
"""What happens at a loss that is not finite."""

S = TypeVar("S")

# On an accelerator reading a loss waits for it, so several are read at once.
_LOOK_EVERY = 10


class Batch(NamedTuple):
    """The arguments of one step."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class StepRecord(NamedTuple, Generic[S]):
    """A step that was taken, and can be again: the state before it, and its batch."""

    before: S
    batch: Batch


class Explain(Protocol[S]):
    """Says why a step went wrong, given that step and the one before; ``None``: no idea."""

    def __call__(self, now: StepRecord[S], previous: StepRecord[S] | None, /) -> str | None:
        """The sentence."""
        ...


class LossMonitor(Generic[S]):
    """Reads the losses of a run; one that is not finite is explained and raised.

    Losses are read at once on the CPU, and a few at a time elsewhere. Since a step is pure, those
    since the last look can be taken again to find the one where it began; so only the state before
    them is kept.

    Args:
        step: Takes a step again.
        explain: Says why a step went wrong.
        every: How many losses to read at a time; by default the device decides.
    """

    def __init__(
        self,
        step: Callable[..., tuple[S, Tensor]],
        explain: Explain[S],
        every: int | None = None,
    ) -> None:
        self._step = step
        self._explain = explain
        self._every = every
        self._anchor: S | None = None
        self._batches: list[Batch] = []  # from the anchor on
        self._unread: list[Tensor] = []

    def before_step(self, state: S, batch: Batch) -> None:
        """The run is about to take a step from ``state``."""
        if self._anchor is None:
            self._anchor = state
        self._batches.append(batch)

    def after_step(self, before: S, loss: Tensor) -> None:
        """It has taken the step from ``before``."""
        self._unread.append(loss)
        every = self._every or (1 if loss.device.type == "cpu" else _LOOK_EVERY)
        if len(self._unread) >= every:
            self.read_losses(before)

    def explain_error(self, before: S, error: ValueError) -> None:
        """Raise a better error for a step that was refused, if its values are to blame."""
        if isinstance(error, ShapeError | DuplicateSiteError):
            return
        self.read_losses(before)
        reason = self._reason(len(self._batches) - 1)
        if reason is not None:
            raise SupportError(reason) from error

    def read_losses(self, before_last: S) -> None:
        """Read the losses that were not read; ``before_last`` is the state before the last step."""
        if not self._unread:
            return
        bad = _first_bad(self._unread)
        if bad is not None:
            raise SupportError(
                self._reason(len(self._batches) - len(self._unread) + bad)
                or f"The loss of a step is {self._unread[bad].item()}, though all sites are finite "
                "when it is taken again. Look for a loss or a model that is not a function of its "
                "arguments."
            )
        self._unread.clear()
        # The last step is kept: its gradient may be why the next loss goes bad.
        self._anchor = before_last
        del self._batches[:-1]

    def end(self, before_last: S, last: S) -> None:
        """Read what is left; a last gradient that went bad shows in the final state only."""
        self.read_losses(before_last)
        if self._batches and not bool(all_finite(last)):
            batch = self._batches[-1]
            reason = self._explain(StepRecord(last, batch), StepRecord(before_last, batch))
            if reason is not None:
                raise SupportError(reason)

    def _reason(self, index: int) -> str | None:
        """Take the steps since the anchor again, up to the one that went wrong."""
        assert self._anchor is not None
        now, previous = StepRecord(self._anchor, self._batches[0]), None
        for batch in self._batches[1 : index + 1]:
            previous = now
            state, _ = self._step(now.before, *now.batch.args, **now.batch.kwargs)
            now = StepRecord(state, batch)
        return self._explain(now, previous)


def nonfinite_names(params: Params) -> list[str]:
    """The names of the parameters that are not finite."""
    return [name for name, value in params.items() if not bool(value.isfinite().all())]


def all_finite(tree: object) -> Tensor:
    """Whether all tensors of a pytree are finite, as a tensor; legal under ``vmap``."""
    flags = [leaf.isfinite().all() for leaf in tensors_in(tree)]
    return torch.stack(flags).all()


def _first_bad(losses: list[Tensor]) -> int | None:
    """The place of the first loss that is not finite."""
    if len(losses) == 1:
        return None if math.isfinite(losses[0].item()) else 0
    finite = torch.stack(losses).isfinite()
    return None if bool(finite.all()) else int(finite.int().argmin())
