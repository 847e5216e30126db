"""What must be the same on all ranks, compared before a run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._core._trees import leaves_of, named_leaves
from .._errors import RankError, describe
from ._communicator import Communicator

# By the first word of an entry's label: why it must be the same on all ranks, and what to do.
_ADVICE = {
    "call": (
        "they would wait for each other for ever",
        "Let all ranks run the same lines of the script",
    ),
    "key": (
        "their draws would not be those of one run",
        "Make it from one seed on all ranks: random.key(0)",
    ),
    "keys": (
        "their members would not be those of one ensemble",
        "Make them from one seed on all ranks: random.split(random.key(0), members)",
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
        "The parameters of a torch.nn module are drawn anew in each process: call "
        "torch.manual_seed(0) before it is built, or declare a function, "
        "PyroParam(lambda: torch.randn(3)), which draws from the key",
    ),
    "state": (
        "they would take the steps of different runs",
        "Load the same checkpoint on every rank",
    ),
}


def require_alike(ranks: Communicator, entries: Mapping[str, str]) -> None:
    """Refuse to go on, unless all ranks have the same entries.

    Args:
        ranks: Connects them.
        entries: Those of this rank. The first word of a label is a key of the table above.

    Raises:
        RankError: on all ranks, with the first entry that differs.
    """
    everyone = ranks.exchange(dict(entries))
    for label in dict.fromkeys(label for each in everyone for label in each):
        ranks_by_value: dict[str, list[int]] = {}
        for rank, each in enumerate(everyone):
            ranks_by_value.setdefault(each.get(label, "none"), []).append(rank)
        if len(ranks_by_value) > 1:
            kind = label.split()[0]
            seen = "; ".join(
                f"{ranks.names(them)} {'has' if len(them) == 1 else 'have'} {value}"
                for value, them in ranks_by_value.items()
            )
            why, advice = _ADVICE[kind]
            name = label if kind in ("argument", "num_steps") else f"the {label}"
            raise RankError(f"The ranks disagree on {name}: {seen}. So {why}. {advice}.")


def digest(tensor: Tensor) -> str:
    """A summary of a tensor: its dtype, shape, and a checksum of its bits."""
    # Cloned, since a contiguous tensor may have any stride in a dimension of size 1.
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{describe(tensor)} with checksum {zlib.crc32(content):08x}"


def shown_key(key: Tensor) -> str:
    """The two words of a key; a checksum of a stack of keys."""
    return str(key.tolist()) if key.ndim == 1 else digest(key)


def of_leaves(kind: str, tree: object) -> dict[str, str]:
    """An entry for each leaf of a pytree, labelled by its path."""
    return {
        f"{kind} {name!r}": digest(leaf) if isinstance(leaf, Tensor) else describe(leaf)
        for name, leaf in named_leaves(tree).items()
    }


def of_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """An entry for each argument of a call, with checksums of its tensors."""
    return {name: ", ".join(map(_whole, leaves)) for name, leaves in _named(args, kwargs).items()}


def of_shapes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """An entry for each argument of a call: the shapes of its tensors, without the rows."""
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
