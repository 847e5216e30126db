"""What is to be said at the end of a run, of the members of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, chain

from ..ensemble import EnsembleState
from ..ensemble._members import size_of, slice_of
from ..ensemble._report import all_equal, first_of, report_quarantine, set_apart, warn_equal
from ._communicator import Link
from ._consistency import of_leaves


def report(
    link: Link, before: EnsembleState, after: EnsembleState, cause: Callable[[int], str]
) -> None:
    """Report on a run as one process would; warnings come from the first rank.

    Args:
        link: To the other ranks.
        before: This rank's members before the run.
        after: The same after it.
        cause: Says why a member of this rank is in quarantine.

    Raises:
        SupportError: on all ranks, if no member is left.
    """
    alive: list[list[bool]] = link.exchange(before.alive.tolist())
    steps: list[list[int]] = link.exchange(after.quarantined_at.tolist())
    counts = [len(each) for each in steps]
    found = set_apart(list(chain(*alive)), list(chain(*steps)))
    if found:
        offset = [0, *accumulate(counts)][link.rank]
        own = first_of(found) - offset
        reasons = link.exchange(cause(own) if 0 <= own < size_of(after) else None)
        reason = next(text for text in reasons if text is not None)
        if link.rank == 0 or len(found) == sum(counts):
            report_quarantine(found, sum(counts), lambda _: reason)
    kinds = {kind for kind in link.exchange(_kind(after)) if kind is not None}
    if link.rank == 0 and max(counts) > 1 and len(kinds) == 1 and kinds != {""}:
        warn_equal(sum(counts), list(after.svi.params))


def _kind(state: EnsembleState) -> str | None:
    """What a rank's members all are; empty if they differ, ``None`` if there are none."""
    if not size_of(state):
        return None
    if size_of(state) > 1 and not all_equal(state):
        return ""
    return str(of_leaves("start", slice_of(state.svi.params, 0)))
