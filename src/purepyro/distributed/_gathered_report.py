"""Warnings and errors at the end of a run, about the members of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, chain

from ..ensemble import EnsembleState
from ..ensemble._members import size_of, slice_of
from ..ensemble._report import all_equal, first_of, newly_quarantined, report_quarantine, warn_equal
from ._communicator import Communicator
from ._consistency import of_leaves


def report(
    ranks: Communicator,
    before: EnsembleState,
    after: EnsembleState,
    cause: Callable[[int], str],
) -> None:
    """Report on a run as a single process would; the first rank logs the warnings.

    Args:
        ranks: Connects them.
        before: This rank's members before the run.
        after: This rank's members after the run.
        cause: Says why a member of this rank is in quarantine.

    Raises:
        SupportError: on all ranks, if no member is left.
    """
    alive: list[list[bool]] = ranks.exchange(before.alive.tolist())
    steps: list[list[int]] = ranks.exchange(after.quarantined_at.tolist())
    counts = [len(each) for each in steps]
    found = newly_quarantined(list(chain(*alive)), list(chain(*steps)))
    if found:
        offset = [0, *accumulate(counts)][ranks.rank]
        own = first_of(found) - offset
        reasons = ranks.exchange(cause(own) if 0 <= own < size_of(after) else None)
        reason = next(text for text in reasons if text is not None)
        if ranks.rank == 0 or len(found) == sum(counts):
            report_quarantine(found, sum(counts), lambda _: reason)
    common = {each for each in ranks.exchange(_common_params(after)) if each is not None}
    if ranks.rank == 0 and max(counts) > 1 and len(common) == 1 and common != {""}:
        warn_equal(sum(counts), list(after.svi.params))


def _common_params(state: EnsembleState) -> str | None:
    """A checksum of the parameters, if all members of a rank have the same ones.

    Empty if members differ, ``None`` if there are none.
    """
    if not size_of(state):
        return None
    if size_of(state) > 1 and not all_equal(state):
        return ""
    return str(of_leaves("start", slice_of(state.svi.params, 0)))
