"""The folder of torch's compiler, which may be unusable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory, TemporaryFile

_NAME = "TORCHINDUCTOR_CACHE_DIR"


def folder_fault() -> str | None:
    """Why the folder for compiled code cannot be used, if it cannot."""
    path = os.environ.get(_NAME)
    if path is None:
        return None
    try:
        os.makedirs(path, exist_ok=True)
        with TemporaryFile(dir=path):
            return None
    except OSError as error:
        return f"The folder {_NAME}={path} cannot be written to ({error.strerror})"


@contextmanager
def usable_folder() -> Iterator[None]:
    """A stretch of code that finds a folder which can be used: the right one, or one in its place.

    A trace writes nothing there, and yet wants to see it.
    """
    if folder_fault() is None:
        yield
        return
    path = os.environ[_NAME]
    with TemporaryDirectory() as other:
        os.environ[_NAME] = other
        try:
            yield
        finally:
            os.environ[_NAME] = path
