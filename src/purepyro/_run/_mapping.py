"""Many runs of one function: all in one under ``vmap``, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import attrs
import torch

from .._compat._isolation import intact
from .._compat._pyro import is_mapped
from .._core._trees import mapped, named_leaves
from .._core._user_code import line_of
from .._errors import DeclarationError, PurepyroError, ShapeError, VmapError, describe, near
from ._sites import site_under_way

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


@contextmanager
def explained(owner: str | None = None) -> Iterator[None]:
    """A stretch of code that runs under ``vmap``, and says what was refused there.

    Args:
        owner: What has the ``map`` that is the way out; ``None``: a vmap of the user's own.
    """
    try:
        yield
    except VmapError as error:  # of a run within, which did not know whose the vmap is
        if owner is None or error.owner is not None or error.__cause__ is None:
            raise
        raise _refusal(error.__cause__, owner) from error.__cause__
    except (RuntimeError, ValueError) as error:
        if (not is_mapped() and owner is None) or _why(error) is None:
            raise
        raise _refusal(error, owner) from error


def _refusal(error: BaseException, owner: str | None) -> VmapError:
    why, site = _why(error), site_under_way(error)
    place = f"at the site {site}, {line_of(error)}" if site else f"at {line_of(error)}"
    if owner is None:
        who, loop = "The model", "a loop over the runs in place of torch.vmap"
    else:
        who, loop = owner, f'{owner}(..., map="loop"), which runs one after the other'
    other = ", or use torch.where and the like in place of branches" if why == _ASKS else ""
    refusal = VmapError(
        f"{who} runs under vmap, which stopped {place}. There the code {why}. Write {loop}, with "
        f"the same draws{other}."
    )
    refusal.owner = owner
    return refusal


# Signs in torch's messages, and what they are about.
_ASKS = (
    "asks a tensor for its values (by `if`, `.item()`, `.numpy()`, `x[mask]` or the like), and "
    "under vmap it has those of all runs at once"
)
_REASONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "calling .item() on a Tensor",
            "data-dependent control flow",
            "data pointer of Tensor that doesn't have storage",
            "storage of BatchedTensorImpl",
            "is not supported for tensor subclasses",
            "dynamic shape",
            "differently shaped Tens",
        ),
        _ASKS,
    ),
    (
        ("is not possible because there exists a Tensor",),
        "writes values that differ from run to run into a tensor that all runs share",
    ),
    (
        ("override the setup_context", "does not have vmap support"),
        "calls a torch.autograd.Function that has no rule for vmap",
    ),
    (
        ("random operation while in randomness error mode",),
        "draws from torch's global generator, which has one state for all runs",
    ),
    (("must only return Tensors",), "returns something that is no tensor"),
    (("`data` under vmap",), "takes the `.data` of a tensor, which vmap does not allow"),
    (
        ("Batching rule not implemented", "vmap", "functorch transform"),
        "calls an operation that vmap does not know",
    ),
)


def _why(error: BaseException) -> str | None:
    """What vmap has against it; ``None`` if this is another error."""
    if isinstance(error, PurepyroError):
        return None
    for signs, reason in _REASONS:
        if any(sign in str(error) for sign in signs):
            return reason
    return None
