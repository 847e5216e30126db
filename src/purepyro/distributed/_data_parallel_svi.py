"""The steps of SVI with gradients averaged over ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec

import attrs
import torch
from torch import Tensor

from .._compat._pyro import is_transforming
from .._core._types import Params, State
from .._errors import PurepyroError, ShapeError, TraceError
from .._run._sites import Site
from ..infer import SVI, SVIRunResult, SVIState
from ..infer.svi._minibatches import Rows, rows_of
from ..infer.svi._nonfinite import Batch, Taken
from ..infer.svi._svi import check_count
from ..random import Key, name_key
from ._all_reduce import averaged
from ._communicator import Link
from ._consistency import of_leaves, of_shapes, require_alike, shown_key

P = ParamSpec("P")


class Pieces(NamedTuple):
    """A step in two, between which the ranks meet.

    Attributes:
        gradients: From a state and this rank's rows to the loss, its gradients and the buffers.
        descended: From a state, and these of all ranks, to the next state.
    """

    gradients: Callable[..., tuple[Tensor, Params, State]]
    descended: Callable[..., tuple[SVIState, Tensor]]


@attrs.frozen
class Averaged(SVI[P]):
    """An SVI each of whose steps is that of all ranks together.

    Attributes:
        link: To the other ranks.
        pieces: Its step, but for the mean in the middle.
        data_size: How many rows all ranks have together; ``None``: do not check.
    """

    link: Link = attrs.field(kw_only=True)
    pieces: Pieces = attrs.field(kw_only=True)
    data_size: int | None = attrs.field(kw_only=True)

    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> SVIState:
        """The state before the first step, the same on all ranks."""
        state = SVI.init(self, key, *args, **kwargs)
        require_alike(
            self.link,
            {
                "call": "DataParallel.init",
                "key": shown_key(key),
                **of_shapes(args, kwargs),
                **of_leaves("start", state.params),
            },
        )
        self._check_rows(state, Batch(args, kwargs))
        return state

    def run_from(
        self, state: SVIState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> SVIRunResult:
        """Steps from a state, which is the same on all ranks."""
        num_steps = check_count(num_steps, "num_steps")
        require_alike(
            self.link,
            {
                "call": "DataParallel.run",
                "num_steps": str(num_steps),
                **of_shapes(args, kwargs),
                **of_leaves("state", state),
            },
        )
        self._check_rows(state, Batch(args, kwargs))
        return SVI.run_from(self, state, num_steps, *args, **kwargs)

    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of all ranks together."""
        if is_transforming():
            raise TraceError(
                "DataParallel.step is called inside vmap, grad or jit, where ranks cannot meet in "
                "the middle of a step. Call it outside; for many members take Sharded(Ensemble(svi"
                "))."
            )
        try:
            value, gradients, buffers = self.pieces.gradients(state, *args, **kwargs)
        except PurepyroError:
            raise
        except ValueError as error:
            # Whoever watches a run would take the last step again, which others will not.
            self.link.fail(
                f"{self.link.named([self.link.rank])} failed in a step: {error} The others cannot "
                "take it without its rows. Look at the data of that rank."
            )
        weight = float(rows_of(Batch(args, kwargs)) or 1)
        value, gradients, buffers = averaged(self.link, weight, value, gradients, buffers)
        return self.pieces.descended(state, value, gradients, buffers)

    def _compiles(self, steps: int | None) -> bool:
        return False  # not as a whole: its pieces are compiled

    def _explain(self, now: Taken[SVIState], previous: Taken[SVIState] | None) -> str | None:
        """Why a step has no finite loss: a rank whose rows are to blame knows."""
        reasons = self.link.exchange(SVI._explain(self, now, previous))
        for rank, reason in enumerate(reasons):
            if reason is not None:
                every = all(other == reason for other in reasons)
                return reason if every else f"On {self.link.named([rank])}: {reason}"
        return None

    def _check_rows(self, state: SVIState, batch: Batch) -> None:
        if self.data_size is None:
            return

        def look(batch: Batch) -> Mapping[str, Site]:
            with torch.no_grad():
                return self._look(state.params, name_key(state.key, "check"), batch)[0]

        Rows(self.data_size, (), look).check(batch)
        rows = [count or 0 for count in self.link.exchange(rows_of(batch))]
        if sum(rows) > self.data_size:
            raise ShapeError(
                f"The ranks have {' + '.join(map(str, rows))} = {sum(rows)} rows, but data_size is "
                f"{self.data_size}, so some rows would count twice. Give each rank rows of its "
                "own, such as x[rank::size], and the number of rows of the full data set."
            )


def averaging(svi: SVI[P], link: Link, pieces: Pieces, data_size: int | None) -> Averaged[P]:
    """The same fit, of all ranks together; the first one shows its progress."""
    given: dict[str, Any] = {
        field.name: getattr(svi, field.name) for field in attrs.fields(SVI) if field.init
    }
    if link.rank:
        given["progress_bar"] = False
    return Averaged(**given, link=link, pieces=pieces, data_size=data_size)
