"""States on disk: named tensors, as data only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from .._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    describe,
)
from .._trees import named_leaves, with_leaves

S = TypeVar("S")

_FORMAT = "purepyro state"
_SCHEMA = 1


def save(path: str | os.PathLike[str], state: object) -> None:
    """Write a state to a file, as data only: tensors by name, and a schema version.

    The file has ``params/linear.weight``, ``opt_state/0/mu/0``, ``key``, ``step`` and so on, and is
    read by ``torch.load(path, weights_only=True)`` too. It appears whole or not at all: an
    interrupted write leaves an earlier file as it was.

    Args:
        path: The file; an earlier one is replaced.
        state: An :class:`SVIState`, a stack of them, or another pytree of tensors.

    Raises:
        DeclarationError: if a leaf is no tensor.

    Example:
        >>> import tempfile, torchopt
        >>> from pathlib import Path
        >>> from purepyro import random
        >>> from purepyro.infer import SVI, load, save
        >>> svi = SVI(lambda: None, lambda: None, torchopt.adam(0.1))
        >>> state = svi.run(random.key(0), 2).state
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "state.pt", state)
        ...     again = load(Path(folder) / "state.pt", like=svi.init(random.key(1)))
        >>> again.key, again.step
        (tensor([0, 0]), tensor(2))
    """
    tensors = {name: leaf.detach().clone() for name, leaf in _tensors(state).items()}
    content = {"format": _FORMAT, "schema": _SCHEMA, "tensors": tensors}
    target = Path(path)
    # Beside the target, so that it can be put in its place in one go.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], *, like: S) -> S:
    """Read a state written by :func:`save`, into the structure of another one.

    No code of the file is run. Names, shapes and dtypes must be exactly those of ``like``; tensors
    come to the devices of ``like``.

    Args:
        path: The file.
        like: A state of the same kind, such as ``svi.init(key, *args)``. Only its structure counts.

    Returns:
        The state of the file.

    Raises:
        MissingNameError, UnknownNameError, ShapeError, DtypeError: if the file is of another model
            or optimiser; the message lists all differences.
        DeclarationError: if the file is no state, or one of a later schema.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from purepyro.infer import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "state.pt", {"w": torch.ones(2)})
        ...     load(Path(folder) / "state.pt", like={"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    expected = _tensors(like)
    found = _read(path)
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    other = {
        name: f"{name}: {describe(found[name])} in the file, {describe(leaf)} in like"
        for name, leaf in expected.items()
        if name in found and describe(found[name]) != describe(leaf)
    }
    if missing or unexpected or other:
        parts = [
            f"missing: {', '.join(missing)}" if missing else "",
            f"unexpected: {', '.join(unexpected)}" if unexpected else "",
            f"of another shape or dtype: {'; '.join(other.values())}" if other else "",
        ]
        shapes = any(found[name].shape != expected[name].shape for name in other)
        kinds = (
            (missing, MissingNameError),
            (unexpected, UnknownNameError),
            (shapes, ShapeError),
            (other, DtypeError),
        )
        error = next(kind for cause, kind in kinds if cause)
        raise error(
            f"The file {str(path)!r} does not fit. In it are\n  "
            + "\n  ".join(part for part in parts if part)
            + "\nA run that went on from it would not be the one that was saved. Load with the "
            "model, guide, optimiser and frozen patterns of the run that wrote it."
        )
    return with_leaves(like, [found[name].to(leaf.device) for name, leaf in expected.items()])


def _tensors(state: object) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, leaf in named_leaves(state).items():
        if not isinstance(leaf, Tensor):
            raise DeclarationError(
                f"The leaf {name!r} of the state is {describe(leaf)}, which is no tensor, so it "
                "cannot be kept as data. Use an optimiser whose state is a pytree of tensors."
            )
        tensors[name] = leaf
    return tensors


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    content: object = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
        raise DeclarationError(
            f"The file {str(path)!r} was not written by purepyro.infer.save, so its names mean "
            "something else. For a dict of parameters use torch.load, and "
            "state._replace(params=...)."
        )
    schema = content.get("schema")
    if schema != _SCHEMA:
        raise DeclarationError(
            f"The file {str(path)!r} has the schema {schema!r}, and this purepyro reads "
            f"{_SCHEMA} only. Load it with the version that wrote it, or a later one."
        )
    return dict(content["tensors"])
