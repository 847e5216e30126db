"""States on disk: named tensors, as data only, under a checksum."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from typing import BinaryIO, TypeVar

import torch
from torch import Tensor

from ..._compat._transforms import innermost
from ..._core._dense import not_dense
from ..._core._trees import leaf_names, leaves_of, with_leaves
from ..._errors import (
    DeclarationError,
    DtypeError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    describe,
)
from ._atomic_file import file_to_replace, replace_file

S = TypeVar("S")


_FORMAT = "purepyro state"


_SCHEMA = 1


# Before there was a checksum.
_EARLIER = {"format", "schema", "tensors"}


def save(path: str | os.PathLike[str], state: object) -> None:
    """Write a state to a file, as data only: tensors by name, a schema version, and a checksum.

    The file has ``params/linear.weight``, ``opt_state/0/mu/0``, ``key``, ``step`` and so on, and is
    read by ``torch.load(path, weights_only=True)`` too. It appears whole or not at all, for any
    number of writers: an interrupted write leaves an earlier file as it was, and of several writers
    to one path the last one stays. A symbolic link is followed, and an earlier file's mode is kept.

    Args:
        path: The file; an earlier one is replaced.
        state: An ``SVIState``, a stack of them, or another pytree of tensors. They are saved
            as plain ones: without gradients or views, on the CPU.

    Raises:
        DeclarationError: if a leaf is no plain, dense tensor, or two have the same name.
        OSError: if the file cannot be written.

    Examples:
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
    tensors = _alone(_tensors(state, "the state"))
    content = {
        "format": _FORMAT,
        "schema": _SCHEMA,
        "sha256": _digest(tensors),
        "tensors": tensors,
    }
    earlier = file_to_replace(path)
    try:
        replace_file(path, content, earlier)
    except OSError as error:
        # The error of the part file would name that, which the caller never heard of.
        raise OSError(
            error.errno,
            f"{error.strerror}; save writes a new file in the folder and puts it in place, so the "
            "folder has to be there, writable, and have room for it. The earlier file is as it was",
            os.fspath(path),
        ) from None


def load(path: str | os.PathLike[str], *, like: S) -> S:
    """Read a state written by ``save()``, into the structure of another one.

    No code of the file is run, and its checksum is checked. Names, shapes and dtypes must be
    exactly those of ``like``; tensors come to the devices of ``like``.

    Args:
        path: The file.
        like: A state of the same kind, such as ``svi.init(key, *args)``. Only its structure counts.

    Returns:
        The state of the file.

    Raises:
        MissingNameError, UnknownNameError, ShapeError, DtypeError: if the file is of another model
            or optimiser; the message lists all differences.
        DeclarationError: if the file is damaged, no state, or one of a later schema.

    Examples:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from purepyro.infer import load, save
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "state.pt", {"w": torch.ones(2)})
        ...     load(Path(folder) / "state.pt", like={"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    expected = _tensors(like, "like")
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


# What can be kept


def _tensors(state: object, where: str) -> dict[str, Tensor]:
    """The leaves by name, detached; all of them are plain."""
    names = leaf_names(state)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DeclarationError(
            f"Several leaves of {where} have the name {repeated[0]!r}, so only one of them "
            "would be kept. Rename a key: '/' in one reads like a level of its own, and 1 like "
            "'1'."
        )
    tensors: dict[str, Tensor] = {}
    for name, leaf in zip(names, leaves_of(state), strict=True):
        if not isinstance(leaf, Tensor):
            raise DeclarationError(
                f"The leaf {name!r} of {where} is {describe(leaf)}, which is no tensor, so it "
                "cannot be kept as data. Use an optimiser whose state is a pytree of tensors."
            )
        fault = _not_plain(leaf)
        if fault is not None:
            raise DeclarationError(
                f"The leaf {name!r} of {where} is {describe(leaf)}, {fault[0]}. A checkpoint holds "
                f"plain, dense tensors, and nothing that has to be guessed. {fault[1]}"
            )
        tensors[name] = leaf.detach()
    return tensors


def _not_plain(leaf: Tensor) -> tuple[str, str] | None:
    """What keeps a tensor from being data, and what to do about it."""
    if innermost(leaf) is not leaf:
        return "inside a transform such as vmap", "Save what the transform returns, after it."
    fault = not_dense(leaf)
    if fault is not None:
        return fault
    if leaf.is_meta:
        return "on the device meta, so without values", "Make the state on a real device."
    if type(leaf) not in (Tensor, torch.nn.Parameter):
        return (
            f"of the class {type(leaf).__name__}",
            "Keep the plain tensors it is made of as leaves of their own.",
        )
    return None


def _alone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own; copied only where that has to be.

    Strides stay, since a run is the same to the last bit only on the same ones.
    """
    seen: set[int] = set()
    alone: dict[str, Tensor] = {}
    for name, leaf in tensors.items():
        mine = leaf.resolve_conj().resolve_neg().cpu()
        storage = mine.untyped_storage()
        # A view would take the whole it is a view of along.
        if storage.nbytes() != mine.nbytes or storage.data_ptr() in seen:
            mine = mine.clone()
        seen.add(mine.untyped_storage().data_ptr())
        alone[name] = mine
    return alone


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of names, dtypes, shapes and values."""
    digest = sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            # Not reshape: to torch one element is contiguous on any stride.
            flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Writing


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file, exactly as they were saved."""
    if not (stat.S_ISREG(mode := os.stat(path).st_mode) or stat.S_ISDIR(mode)):
        raise _damaged(path, "it is no regular file")
    with open(path, "rb") as file:
        content = _unpacked(path, file)
        if content.keys() == _EARLIER:
            # Its only checksums are those of the archive, which torch does not look at.
            content = _unpacked(path, _checked(path, file))
    schema, tensors = content.get("schema"), content.get("tensors")
    if type(schema) is int and schema > _SCHEMA:
        raise DeclarationError(
            f"The file {str(path)!r} has the schema {schema!r}, and this purepyro reads {_SCHEMA} "
            "only. Load it with the version that wrote it, or a later one; if all had the same, "
            "it is damaged, or no checkpoint of ours."
        )
    if (
        schema != _SCHEMA
        or not isinstance(tensors, dict)
        or not all(
            isinstance(name, str) and isinstance(leaf, Tensor) and _is_as_saved(leaf)
            for name, leaf in tensors.items()
        )
    ):
        raise _damaged(path, "it holds something else than plain tensors by name")
    if content.keys() != _EARLIER and content.get("sha256") != _digest(tensors):
        raise _damaged(path, "its checksum is not that of its contents")
    return _alone(tensors)


def _unpacked(path: str | os.PathLike[str], file: BinaryIO) -> dict[str, object]:
    file.seek(0)
    start = file.read(4)
    if not start:
        raise _damaged(path, "it is empty")
    if start != b"PK\x03\x04":
        raise _damaged(path, f"it begins with {start!r}, not as a file of torch.save does")
    file.seek(0)
    try:
        content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:
        # Torch would advise to load it with weights_only=False, which runs what is in it.
        raise _damaged(path, f"torch cannot read it as plain data ({_named(error)})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise _damaged(
            path, "it was not written by purepyro.infer.save, so names in it mean something else"
        )
    return content


def _checked(path: str | os.PathLike[str], file: BinaryIO) -> BinaryIO:
    """The archive once more, of nothing but what has its right checksum."""
    file.seek(0)
    copy = BytesIO()
    try:
        with zipfile.ZipFile(file) as found, zipfile.ZipFile(copy, "w") as checked:
            for name in found.namelist():
                checked.writestr(name, found.read(name))
    except Exception as error:
        raise _damaged(path, f"its archive is not whole ({_named(error)})") from None
    return copy


def _named(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else type(error).__name__


def _is_as_saved(leaf: Tensor) -> bool:
    return _not_plain(leaf) is None and type(leaf) is Tensor and not leaf.requires_grad


def _damaged(path: str | os.PathLike[str], seen: str) -> DeclarationError:
    return DeclarationError(
        f"The file {str(path)!r} of {os.stat(path).st_size:,} bytes is damaged, or no checkpoint "
        f"of ours: {seen}. A run that went on from it could be another one than the one that was "
        "saved. Go back to an earlier file of purepyro.infer.save. A dict of parameters that "
        "torch.save wrote is read by torch.load(path, weights_only=True); then "
        "state._replace(params=...)."
    )
