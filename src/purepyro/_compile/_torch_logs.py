"""Lines that torch logs about itself, while it traces and compiles for us."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# What they log either does not concern the user (which operators have a fast path in C++), or comes
# as an error as well.
_LOGGERS = ("torch._dynamo", "torch._functorch", "torch._inductor", "torch._subclasses", "torch.fx")


@contextmanager
def quiet() -> Iterator[None]:
    """A stretch of code in which torch's compiler logs only what the user asked for.

    The caller keeps others from tracing.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger, level in zip(loggers, before, strict=True):
        if level in (logging.NOTSET, logging.WARNING):
            logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
