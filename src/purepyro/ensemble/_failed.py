"""Members that go bad: each is set apart by itself, and explained."""

from __future__ import annotations

from typing import ParamSpec

import attrs
import torch
from torch import Tensor

from .._core._trees import where
from .._core._types import Params
from ..infer import SVI, SVIState
from ..infer.svi._nonfinite import Batch, Taken
from ._stacked import EnsembleState

P = ParamSpec("P")


def lenient(svi: SVI[P]) -> SVI[P]:
    """The same fit, but steps compute on where they would raise: here members are set apart."""
    return attrs.evolve(svi, on_nonfinite="ignore") if svi.on_nonfinite == "raise" else svi


def guarded(before: EnsembleState, after: SVIState, loss: Tensor) -> tuple[EnsembleState, Tensor]:
    """One member's step, undone if it is in quarantine or its loss or gradient was not finite."""
    alive = before.quarantined_at < 0
    good = loss.isfinite() & _stays_finite(before.svi.params, after.params)
    bad_at = torch.where(alive & ~good, before.svi.step, before.quarantined_at)
    svi = where(alive & good, after, before.svi)
    return EnsembleState(svi, before.members, bad_at), torch.where(alive, loss, torch.nan)


def _stays_finite(before: Params, after: Params) -> Tensor:
    """Whether each number that was finite still is, which a bad gradient does not leave so."""
    # A number less itself is zero or nan. Flags, and their logic, are slow in compiled kernels.
    lost = torch.zeros(())
    for name, value in after.items():
        was = before[name]
        lost = lost + torch.where(was - was == 0, value - value, 0.0).sum()
    return lost == 0


def cause(svi: SVI[P], state: SVIState, batch: Batch) -> str:
    """Why the next step of a member is not finite; it is taken once more, by itself."""
    step = lenient(svi).step
    after, loss = step(state, *batch.args, **batch.kwargs)
    now = Taken(state, batch)
    if bool(loss.isfinite()):
        reason = svi._explain(Taken(after, batch), now)
    else:
        reason = svi._explain(now, None)
    return reason or (
        f"Step {int(state.step)} is not finite, though all sites are when it is taken again. Look "
        "for a loss or a model that is not a function of its arguments."
    )
