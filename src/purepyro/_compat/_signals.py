"""A stretch of code that no signal's handler cuts short."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def undisturbed(body: Callable[[], T]) -> T:
    """What ``body`` returns; handlers of signals, such as that of Ctrl-C, are called when it ends.

    For code of torch in which an exception at any moment ends the process: where its modes are cut
    short in Python, its C++ finds two where it looks for one, in a destructor.
    """
    if threading.current_thread() is not threading.main_thread():
        return body()  # handlers are called in the main thread only
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    try:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, note)
        return body()
    finally:
        try:
            _put_back(handlers)
        finally:  # again, as a handler may have cut the first short
            _put_back(handlers)
        for came_first, frame in came:
            handlers[came_first](came_first, frame)


def _put_back(handlers: dict[int, Callable[[int, FrameType | None], Any]]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)
