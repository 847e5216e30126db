"""States on disk: named tensors, as data only, under a checksum."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import torch
from torch import Tensor

from ..._compat._pyro import innermost
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

S = TypeVar("S")

_FORMAT = "purepyro state"
_SCHEMA = 1
# Before there was a checksum.
_EARLIER = {"format", "schema", "tensors"}
_PREFIX, _SUFFIX = ".purepyro-", ".part"
# After so many seconds without a write, whoever wrote a part file is taken to be gone.
_ABANDONED = 3_600


def save(path: str | os.PathLike[str], state: object) -> None:
    """Write a state to a file, as data only: tensors by name, a schema version, and a checksum.

    The file has ``params/linear.weight``, ``opt_state/0/mu/0``, ``key``, ``step`` and so on, and is
    read by ``torch.load(path, weights_only=True)`` too. It appears whole or not at all, for any
    number of writers: an interrupted write leaves an earlier file as it was, and of several writers
    to one path the last one stays. A symbolic link is followed, and an earlier file's mode is kept.

    Args:
        path: The file; an earlier one is replaced.
        state: An :class:`SVIState`, a stack of them, or another pytree of tensors. They are saved
            as plain ones: without gradients or views, on the CPU.

    Raises:
        DeclarationError: if a leaf is no plain, dense tensor, or two have the same name.
        OSError: if the file cannot be written.

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
    tensors = _alone(_tensors(state, "the state"))
    content = {
        "format": _FORMAT,
        "schema": _SCHEMA,
        "sha256": _digest(tensors),
        "tensors": tensors,
    }
    earlier = _earlier(path)
    try:
        _replace(path, content, earlier)
    except OSError as error:
        # The error of the part file would name that, which the caller never heard of.
        raise OSError(
            error.errno,
            f"{error.strerror}; save writes a new file in the folder and puts it in place, so the "
            "folder has to be there, writable, and have room for it. The earlier file is as it was",
            os.fspath(path),
        ) from None


def load(path: str | os.PathLike[str], *, like: S) -> S:
    """Read a state written by :func:`save`, into the structure of another one.

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

    Example:
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


def _replace(path: str | os.PathLike[str], content: object, earlier: os.stat_result | None) -> None:
    """Write to a new file, and put it in place in one go."""
    target = Path(os.path.realpath(path))
    # Beside the target, and short, however long the name of that. Random names are unique also for
    # threads, and for processes of other machines.
    part = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    try:
        if not _write_unnamed(part, content, earlier):
            _write_named(part, content, earlier)
        written = part.stat().st_mtime
        part.replace(target)
    finally:
        # By its name, which is ours alone, so at whatever moment an interrupt came.
        part.unlink(missing_ok=True)
    with suppress(OSError):  # some file systems know no such thing
        _sync(target.parent)
    with suppress(OSError):  # also of others', who may be faster
        _sweep(target.parent, before=written - _ABANDONED)


def _earlier(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The file that is to be replaced."""
    try:
        earlier = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(earlier.st_mode):
        raise OSError(errno.EISDIR, "save wants a file, and this is a folder", os.fspath(path))
    if not stat.S_ISREG(earlier.st_mode):
        raise OSError(
            errno.EINVAL, "save replaces regular files only, no device or pipe", os.fspath(path)
        )
    if not os.access(path, os.W_OK):
        raise OSError(
            errno.EACCES, "save does not replace a file that is read-only", os.fspath(path)
        )
    return earlier


def _write_unnamed(part: Path, content: object, earlier: os.stat_result | None) -> bool:
    """Write a file that has no name before it is whole, so that no kill can leave a part of it.

    Returns:
        Whether the system can do that.
    """
    flags = getattr(os, "O_TMPFILE", 0)
    if not flags:
        return False
    with ExitStack() as stack:
        try:
            number = stack.enter_context(
                _opened(part.parent, flags | os.O_RDWR | os.O_CLOEXEC, _mode(earlier))
            )
        except OSError:
            return False
        _write(number, content, earlier)
        try:
            # With a folder given, which an absolute path does not need, Python follows the link.
            os.link(f"/proc/self/fd/{number}", part, src_dir_fd=number, follow_symlinks=True)
        except OSError:
            return False
    return True


def _write_named(part: Path, content: object, earlier: os.stat_result | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    with _opened(part, flags, _mode(earlier)) as number:
        _write(number, content, earlier)


@contextmanager
def _opened(path: Path, flags: int, mode: int) -> Iterator[int]:
    numbers = list[int]()
    try:
        # In one step, so that no interrupt comes between the file's opening and its being noted.
        numbers.extend(map(os.open, [path], [flags], [mode]))
        yield numbers[0]
    finally:
        for number in numbers:
            os.close(number)


def _mode(earlier: os.stat_result | None) -> int:
    # A new file gets what the umask leaves. What replaces one is closed before it has its mode.
    return 0o666 if earlier is None else 0o600


def _write(number: int, content: object, earlier: os.stat_result | None) -> None:
    with open(number, "wb", closefd=False) as file:
        _pack(file, content)
    if earlier is not None:
        now = os.fstat(number)
        if (now.st_uid, now.st_gid) != (earlier.st_uid, earlier.st_gid):
            with suppress(OSError):  # only root may
                os.chown(number, earlier.st_uid, earlier.st_gid)
        os.chmod(number, stat.S_IMODE(earlier.st_mode))
    os.fsync(number)


def _pack(file: BinaryIO, content: object) -> None:
    sink = _Sink(file)
    try:
        torch.save(content, cast("Any", sink))
    except BaseException as error:
        # Torch may have something to say about its archive, after what happened.
        raise (sink.fault or _first(error)) from None
    finally:
        sink.is_open = False
    if sink.fault is not None:
        raise sink.fault


class _Sink:
    """Where torch writes its archive to.

    What goes wrong is kept, not raised: torch's writer would end the archive once more when it is
    collected, maybe long after the file was closed, and an error there ends the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.is_open = True
        self.fault: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            if self.is_open and self.fault is None:
                self.file.write(data)
        except BaseException as error:  # also Ctrl-C, which is raised when torch is done
            self.fault = error
        return len(data)

    def flush(self) -> None:
        """Torch asks for it; the file is flushed afterwards."""


def _first(error: BaseException) -> BaseException:
    """The interrupt that an error came after, if it did."""
    cause: BaseException | None = error
    while isinstance(cause, Exception):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _sync(folder: Path) -> None:
    """Make the change of a name last through a loss of power."""
    with _opened(folder, os.O_RDONLY, 0) as number:
        os.fsync(number)


def _sweep(folder: Path, before: float) -> None:
    """Remove part files of processes that were killed long ago, by the clock of the disk."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        os.unlink(entry.path)


# Reading


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
