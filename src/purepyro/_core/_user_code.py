"""Where in the user's code an error came from."""

from __future__ import annotations

import traceback
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1])


def line_of(error: BaseException) -> str:
    """The last line of the user's own code on the way to an error, as ``file:number: `code```."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_own(frame.filename)]
    # A schedule of the optimiser, say, or a distribution.
    others = [frame for frame in frames if "/torch/" not in frame.filename]
    frame = (own or others or list(frames))[-1]
    return f"{frame.filename}:{frame.lineno}: `{frame.line}`"


def is_own(path: str) -> bool:
    """Whether a file is the user's, and not a library's, ours or made up."""
    library = ("site-packages", "dist-packages", _PACKAGE, "<")
    return not any(part in path for part in library)
