"""What all ranks must have alike, compared before a run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._core._trees import leaves_of, named_leaves
from .._errors import RankError, describe
from ._communicator import Link

# For each kind of thing, by the first word of its label: why it must be alike, and what to do.
_ADVICE = {
    "call": (
        "they would wait for each other for ever",
        "Let all ranks run the same lines of the script",
    ),
    "key": (
        "their draws would not be those of one run",
        "Make it of one number that all ranks are given: random.key(0)",
    ),
    "keys": (
        "their members would not be those of one ensemble",
        "Make them of one number that all ranks are given: random.split(random.key(0), members)",
    ),
    "num_steps": (
        "some would wait for steps that others do not take",
        "Give all ranks the same number",
    ),
    "argument": (
        "what a member learns would depend on the rank that holds it",
        "Load the same data on every rank",
    ),
    "shape": (
        "their parameters would not fit",
        "Let the ranks' data differ in their rows, the first dimension, alone",
    ),
    "start": (
        "the result would depend on the number of ranks",
        "Numbers that a torch.nn module has drawn are other ones in each process: call "
        "torch.manual_seed(0) before it is built, or declare a function, "
        "PyroParam(lambda: torch.randn(3)), which draws from the key",
    ),
    "state": (
        "they would take the steps of different runs",
        "Load the same checkpoint on every rank",
    ),
}


def require_alike(link: Link, found: Mapping[str, str]) -> None:
    """Refuse to go on, if the ranks have not the same entries.

    Args:
        link: To the other ranks.
        found: This rank's, by labels whose first word is a kind of thing from the list above.

    Raises:
        RankError: on all ranks, with the first entry that differs.
    """
    notes = link.exchange(dict(found))
    labels = list(dict.fromkeys(label for note in notes for label in note))
    for label in labels:
        groups: dict[str, list[int]] = {}
        for rank, note in enumerate(notes):
            groups.setdefault(note.get(label, "none"), []).append(rank)
        if len(groups) > 1:
            seen = "; ".join(
                f"{link.named(ranks)} {'has' if len(ranks) == 1 else 'have'} {value}"
                for value, ranks in groups.items()
            )
            why, advice = _ADVICE[label.split()[0]]
            name = label if label.split()[0] in ("argument", "num_steps") else f"the {label}"
            raise RankError(f"The ranks disagree on {name}: {seen}. So {why}. {advice}.")


def digest(tensor: Tensor) -> str:
    """A tensor in short: its shape, and a checksum of its bits."""
    # Cloned, since a contiguous tensor may have any stride where it has one entry only.
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{describe(tensor)} with checksum {zlib.crc32(content):08x}"


def shown_key(key: Tensor) -> str:
    """A key by its two numbers; a stack of keys in short."""
    return str(key.tolist()) if key.ndim == 1 else digest(key)


def of_leaves(kind: str, tree: object) -> dict[str, str]:
    """An entry for each leaf of a pytree, by its path."""
    return {
        f"{kind} {name!r}": digest(leaf) if isinstance(leaf, Tensor) else describe(leaf)
        for name, leaf in named_leaves(tree).items()
    }


def of_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """An entry for each argument of a call: all of it."""
    return {name: ", ".join(map(_whole, leaves)) for name, leaves in _named(args, kwargs).items()}


def of_shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """An entry for each argument of a call: its tensors' shapes, but for the rows."""
    return {
        f"shape of {name}, but for its rows,": ", ".join(map(_of_row, leaves))
        for name, leaves in _named(args, kwargs).items()
    }


def _named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, list[object]]:
    named = {f"argument {i}": leaves_of(arg) for i, arg in enumerate(args)}
    return named | {f"argument {name!r}": leaves_of(kwargs[name]) for name in sorted(kwargs)}


def _whole(leaf: object) -> str:
    return digest(leaf) if isinstance(leaf, Tensor) else describe(leaf)


def _of_row(leaf: object) -> str:
    if not isinstance(leaf, Tensor):
        return type(leaf).__name__
    return describe(leaf.new_empty(leaf.shape[1:]))
