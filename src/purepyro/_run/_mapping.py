"""Many runs of one function: all in one under ``vmap``, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import attrs
import torch

from .._compat._isolation import intact
from .._core._trees import mapped, named_leaves
from .._errors import DeclarationError, ShapeError, describe, near
from ._explained import explained

T = TypeVar("T")
S = TypeVar("S")

How: TypeAlias = Literal["vmap", "loop"]
"""How many runs are done: all in one, or one after the other."""


def check_how(_: object, field: attrs.Attribute[Any], how: object) -> None:
    """Refuse a way to run that is none."""
    if how not in get_args(How):
        raise DeclarationError(
            f"{field.name} is {how!r}, which is no way to run several times. "
            f"{near(str(how), get_args(How))}"
        )


@intact
def over(
    fn: Callable[[S], T], inputs: S, count: int, *, how: How, chunk_size: int | None, what: str
) -> T:
    """What ``fn`` returns for each of ``count`` inputs, along a first dimension.

    Args:
        fn: Pure, from a pytree to a pytree of tensors.
        inputs: A pytree of tensors with the runs first.
        count: How many runs.
        how: The loop takes whatever runs singly, and gives the same draws bit for bit.
        chunk_size: How many runs ``vmap`` holds in memory at once; a loop has one at a time.
        what: Whose ``map`` this is, as a user writes it.
    """
    if how == "loop":
        with explained():
            results = [fn(_run_of(inputs, i)) for i in range(count)]
        return along_first(results, what)
    with explained(what):
        return torch.vmap(fn, chunk_size=chunk_size)(inputs)


def _run_of(inputs: S, i: int) -> S:
    return mapped(lambda leaf: leaf[i], inputs)


def along_first(results: Sequence[T], what: str) -> T:
    """Pytrees of one structure, along a new first dimension.

    Raises:
        ShapeError: if they differ in structure or shapes; it names what differs.
    """
    first = {name: describe(leaf) for name, leaf in named_leaves(results[0]).items()}
    for i, result in enumerate(results[1:], start=1):
        other = {name: describe(leaf) for name, leaf in named_leaves(result).items()}
        if first != other:
            raise _different(first, other, i, what)
    return mapped(lambda *leaves: torch.stack(leaves), *results)


def _different(first: dict[str, str], other: dict[str, str], i: int, what: str) -> ShapeError:
    name = next(n for n in (*first, *other) if first.get(n) != other.get(n))
    # The leaves of a tuple have numbers for names, which tell nobody anything.
    site = f"The site {name!r}" if not name.replace("/", "").isdigit() else "The result"
    shown = [leaves.get(name, "missing") for leaves in (first, other)]
    return ShapeError(
        f"{site} is {shown[0]} in run 0 and {shown[1]} in run {i}, so what {what} returns cannot "
        "be stacked: runs come along a first dimension and must be alike. Name the sites that are "
        "in return_sites, or call apply, trace or the loss for each key in a loop of your own."
    )
