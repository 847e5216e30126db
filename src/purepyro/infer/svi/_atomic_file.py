"""A file that is replaced as a whole: what kills a process leaves the earlier one."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

_PREFIX, _SUFFIX = ".purepyro-", ".part"


# After so many seconds without a write, whoever wrote a part file is taken to be gone.
_ABANDONED = 3_600


def replace_file(
    path: str | os.PathLike[str], content: object, earlier: os.stat_result | None
) -> None:
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


def file_to_replace(path: str | os.PathLike[str]) -> os.stat_result | None:
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
