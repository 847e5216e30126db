"""What is to be said at the end of a run: members set apart, members that are all one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from .._errors import SupportError
from ._members import size_of
from ._stacked import EnsembleState

LOGGER = logging.getLogger("purepyro.ensemble")


def report(before: EnsembleState, after: EnsembleState, cause: Callable[[int], str]) -> None:
    """Report on a run, to the logger ``purepyro.ensemble``.

    Args:
        before: The members before the run.
        after: The members after it.
        cause: Says why a member is in quarantine.

    Raises:
        SupportError: if no member is left.
    """
    found = set_apart(before.alive.tolist(), after.quarantined_at.tolist())
    if found:
        report_quarantine(found, size_of(after), cause)
    if all_equal(after):
        warn_equal(size_of(after), list(after.svi.params))


def warn_equal(count: int, names: Sequence[str]) -> None:
    """Tell that all members are one; ``names`` are those of their parameters."""
    if any(name.startswith("locs.") or ".locs." in name for name in names):
        LOGGER.warning(
            "All %d members are equal, to the bit, so together they are no more than one: they "
            "start from the same parameters, and no draw or data tells them apart. Let the guide "
            "start elsewhere in each, by init_loc_fn=init_to_sample or init_to_uniform.",
            count,
        )
        return
    LOGGER.warning(
        "All %d members are equal, to the bit, so together they are no more than one: they "
        "start from the same parameters, and no draw or data tells them apart. Let starting "
        "values depend on the key, by a function, PyroParam(lambda: torch.randn(3)); also in "
        "place of a torch.nn module's own: replace(model, {'net.weight': PyroParam(...)}).",
        count,
    )


def set_apart(was_alive: Sequence[bool], steps: Sequence[int]) -> dict[int, int]:
    """The members set apart in a run with their steps; all, if there is none left.

    Args:
        was_alive: For each member whether it was alive before the run.
        steps: The ``quarantined_at`` of each after it.
    """
    none_left = all(step >= 0 for step in steps)
    return {i: s for i, s in enumerate(steps) if s >= 0 and (was_alive[i] or none_left)}


def first_of(found: dict[int, int]) -> int:
    """The member that was set apart first."""
    return min(found, key=lambda member: (found[member], member))


def report_quarantine(found: dict[int, int], count: int, cause: Callable[[int], str]) -> None:
    """Tell which members were set apart, and why the first was; refuse to go on without any."""
    first = first_of(found)
    reason = cause(first)
    if len(found) == count:
        raise SupportError(
            f"All {count} members are in quarantine, so nothing is left to train. The first was "
            f"member {first}. {reason}"
        )
    listed = ", ".join(f"{member} at step {step}" for member, step in sorted(found.items()))
    LOGGER.warning(
        "%d of %d members went into quarantine and stay as they were: %s. Member %d: %s",
        len(found),
        count,
        listed,
        first,
        reason,
    )


def all_equal(state: EnsembleState) -> bool:
    """Whether several members with keys of their own have one and the same parameters."""
    params = state.svi.params
    if size_of(state) < 2 or not params or _same(state.svi.key):
        return False
    return all(_same(value) for value in params.values())


def _same(stack: Tensor) -> bool:
    return bool((stack == stack[:1]).all())
