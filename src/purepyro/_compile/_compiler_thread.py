"""Work of the compiler, in a thread of its own, where no interrupt reaches it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Generic, TypeVar

from .._compat._tracing import COMPILING

T = TypeVar("T")


class _Work(Generic[T]):
    """Something to do, and what came of it."""

    def __init__(self, body: Callable[[], T]) -> None:
        self._body = body
        self._results: list[T] = []
        self._error: BaseException | None = None

    def do(self) -> None:
        """Do it, when all that was begun before is done."""
        try:
            with COMPILING:
                self._results.append(self._body())
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._results[0]


def apart(body: Callable[[], T]) -> T:
    """What ``body`` returns, to whose end it comes even if the one who waits for it is interrupted.

    The compiler changes much of torch for its time, all over the process: modes, settings, patched
    methods. Cut short it leaves some of that, and may take the process down. Python raises
    KeyboardInterrupt in the main thread only; so there somebody waits, and stops waiting at once.
    What is compiled all the same is then in the cache on the disk.
    """
    work = _Work(body)
    if threading.current_thread() is threading.main_thread():
        thread = threading.Thread(target=copy_context().run, args=(work.do,), name="purepyro.jit")
        thread.start()
        thread.join()
    else:
        work.do()
    return work.result()
