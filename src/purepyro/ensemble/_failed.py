"""Members whose loss or gradient is not finite: masked out of a step, and diagnosed."""

from __future__ import annotations

from typing import ParamSpec

import attrs
import torch
from torch import Tensor

from .._core._trees import where
from .._core._types import Params
from ..infer import SVI, SVIState
from ..infer.svi._diagnosis import diagnose
from ..infer.svi._nonfinite import Batch, StepRecord
from ._stacked import EnsembleState

P = ParamSpec("P")


def without_checks(svi: SVI[P]) -> SVI[P]:
    """The same fit; its steps return values that are not finite where they would raise."""
    return attrs.evolve(svi, on_nonfinite="ignore") if svi.on_nonfinite == "raise" else svi


def mask_failed(
    before: EnsembleState, after: SVIState, loss: Tensor
) -> tuple[EnsembleState, Tensor]:
    """A member after a step, or as before if its loss or gradient is or was not finite."""
    alive = before.quarantined_at < 0
    good = loss.isfinite() & _stays_finite(before.svi.params, after.params)
    bad_at = torch.where(alive & ~good, before.svi.step, before.quarantined_at)
    svi = where(alive & good, after, before.svi)
    return EnsembleState(svi, before.members, bad_at), torch.where(alive, loss, torch.nan)


def _stays_finite(before: Params, after: Params) -> Tensor:
    """Whether all values that were finite still are: a gradient that is not finite shows here."""
    # x - x is 0 or nan: boolean tensors are slow in compiled kernels.
    lost = torch.zeros(())
    for name, value in after.items():
        was = before[name]
        lost = lost + torch.where(was - was == 0, value - value, 0.0).sum()
    return lost == 0


def diagnose_step(svi: SVI[P], state: SVIState, batch: Batch) -> str:
    """Why the next step of a member is not finite; the step is taken once more to find out."""
    step = without_checks(svi).step
    after, loss = step(state, *batch.args, **batch.kwargs)
    now = StepRecord(state, batch)
    if bool(loss.isfinite()):
        reason = diagnose(svi, StepRecord(after, batch), now)
    else:
        reason = diagnose(svi, now, None)
    return reason or (
        f"Step {int(state.step)} is not finite, though all sites are when it is taken again. Look "
        "for a loss or a model that is not a function of its arguments."
    )
