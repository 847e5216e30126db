"""Members taken out of a stacked state, and put into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from .._compat._pyro import is_transforming
from .._core._trees import leaves_of, mapped, named_leaves
from .._core._whole_numbers import whole
from .._errors import DeclarationError, DtypeError, ShapeError, UnknownNameError, describe
from ..infer import SVIState
from ._stacked import EnsembleState

T = TypeVar("T")

Indices: TypeAlias = Tensor | Sequence[int] | Sequence[bool]
"""Which members: by number, in any order, or by a mask over all of them."""


def size_of(state: EnsembleState) -> int:
    """How many members there are."""
    return state.quarantined_at.shape[0]


def taken(tree: T, index: Tensor) -> T:
    """The members of these numbers, of a stacked pytree."""
    return mapped(lambda leaf: leaf.index_select(0, index.to(leaf.device)), tree)


def slice_of(tree: T, i: int) -> T:
    """One member of a stacked pytree, without the first dimension."""
    return mapped(lambda leaf: leaf[i], tree)


def stacked(trees: Sequence[T]) -> T:
    """Pytrees of one structure, along a new first dimension."""
    return mapped(lambda *leaves: torch.stack(leaves), *trees)


def joined(trees: Sequence[T]) -> T:
    """Stacked pytrees of one structure, one behind the other."""
    return mapped(lambda *leaves: torch.cat(leaves), *trees)


def member(state: EnsembleState, i: int) -> EnsembleState:
    """One member, as a state without the first dimension."""
    count = size_of(state)
    number = whole(i)
    if number is None:
        raise DtypeError(
            f"The member is {describe(i)}, and one member has one number. Give an int; select(...) "
            "takes several."
        )
    if not -count <= number < count:
        raise _out_of_range([number], count)
    return slice_of(state, number)


def select(state: EnsembleState, indices: Indices) -> EnsembleState:
    """Some members, in the order of ``indices``."""
    index = _numbers(indices, size_of(state), "select")
    if not len(index):
        raise _none_left("select", indices)
    return taken(state, index)


def drop(state: EnsembleState, indices: Indices) -> EnsembleState:
    """All members but some."""
    count = size_of(state)
    kept = torch.ones(count, dtype=torch.bool)
    kept[_numbers(indices, count, "drop").cpu() % count] = False
    if not bool(kept.any()):
        raise _none_left("drop", indices)
    return taken(state, kept.nonzero().flatten())


def append(
    state: EnsembleState, other: EnsembleState | SVIState | Sequence[SVIState]
) -> EnsembleState:
    """The members of ``state``, then those of ``other``."""
    if not isinstance(other, EnsembleState):
        other = _as_ensemble([other] if isinstance(other, SVIState) else list(other), state)
    _require_alike(state, other, 1)
    return joined([state, other])


def _as_ensemble(states: list[SVIState], like: EnsembleState) -> EnsembleState:
    if not states:
        raise ShapeError("append got no member, so there is nothing to add. Give one or more.")
    if leaves_of(like.members):
        raise DeclarationError(
            "append got members without their settings, but each member of this ensemble has its "
            "own, so their steps would not be known. Append an EnsembleState of the same Ensemble."
        )
    for each in states:
        _require_alike(slice_of(like.svi, 0), each, 0)
    svi = stacked(states)
    return EnsembleState(svi, like.members, torch.full_like(svi.step, -1))


def _require_alike(one: object, other: object, skipped: int) -> None:
    """Refuse trees that differ in names, dtypes or shapes, but for ``skipped`` first dimensions."""
    ours, theirs = named_leaves(one), named_leaves(other)
    different = [
        f"{name}: {_shown(ours.get(name), skipped)} here, {_shown(theirs.get(name), skipped)} there"
        for name in (*ours, *(name for name in theirs if name not in ours))
        if _shown(ours.get(name), skipped) != _shown(theirs.get(name), skipped)
    ]
    if different:
        raise ShapeError(
            "The members to append differ from those that are there in\n  "
            + "\n  ".join(different)
            + "\nso they cannot be stacked. Members of one ensemble share model, guide and "
            "optimiser; keep others in an Ensemble of their own."
        )


def _shown(leaf: object, skipped: int) -> str:
    if leaf is None:
        return "none"
    return describe(leaf[(0,) * skipped] if isinstance(leaf, Tensor) else leaf)


def _numbers(indices: Indices, count: int, where: str) -> Tensor:
    """The members' numbers, from numbers or a mask."""
    index = torch.as_tensor(indices)
    if not index.numel() and index.ndim == 1:
        index = index.long()
    if index.ndim != 1 or index.dtype.is_floating_point or index.dtype.is_complex:
        raise DtypeError(
            f"{where} got {describe(indices)}, which numbers no members. Give a list or 1-d tensor "
            "of ints, or a mask of bools, one for each member."
        )
    if index.dtype is torch.bool:
        if len(index) != count:
            raise ShapeError(
                f"{where} got a mask of {len(index)} for {count} members, so some would be neither "
                "in nor out. Give one bool for each, such as state.alive."
            )
        return index.nonzero().flatten()
    if is_transforming():
        return index % count
    bad = [i for i in index.tolist() if not -count <= i < count]
    if bad:
        raise _out_of_range(bad, count)
    return index % count


def _out_of_range(bad: list[int], count: int) -> UnknownNameError:
    what = f"is no member {bad[0]}" if len(bad) == 1 else f"are no members {bad}"
    return UnknownNameError(
        f"There {what} in an ensemble of {count}, whose members are 0 to {count - 1}. Give numbers "
        "in this range, or negative ones to count from the end."
    )


def _none_left(where: str, indices: Indices) -> ShapeError:
    return ShapeError(
        f"{where} with {describe(indices)} would leave no member, and an ensemble of none has no "
        "loss and no prediction. Keep one or more."
    )
