"""Which line of the user's own code an operation of a graph comes from."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Container
from types import FrameType
from typing import Any

from .._compat._tracing import is_control_flow
from .._core._user_code import is_own
from .._errors import TraceError


class Lines:
    """Notes, while a function runs, where some operators are called from, in order.

    Args:
        wanted: The names of the operators, without trailing underscores.
    """

    def __init__(self, wanted: Container[str]) -> None:
        self.found: list[tuple[str, str]] = []
        self._wanted = wanted

    def tell(self, operator: object) -> None:
        """Note the operator that is about to run; those that take functions are refused."""
        if is_control_flow(operator):
            raise TraceError(
                f"The function given to jit calls torch's `{operator}` at {_line_here()}. What it "
                "takes are functions, which a graph of ours cannot hold. Write torch.where for a "
                "choice, a Python loop (which is written out) for one of known length, and "
                "torch.vmap for a map; or call it outside of jit."
            )
        name = plain_name(operator)
        if name in self._wanted:
            self.found.append((name, _line_here()))


def plain_name(operator: object) -> str:
    """The name of an operator of torch, the same for the one that writes in place."""
    schema: Any = getattr(operator, "_schema", None)
    return "" if schema is None else str(schema.name).partition("::")[2].rstrip("_")


def _line_here() -> str:
    """The innermost line of the user's own code that is running; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_own(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    path, line = frame.f_code.co_filename, frame.f_lineno
    return f"{path}:{line}: `{linecache.getline(path, line).strip()}`"
