"""Lines that torch logs about itself, while it traces and compiles for us."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# What they say is either no matter of the user's (which operators have a short way in C++), or
# comes as an error as well.
_TALKERS = ("torch._dynamo", "torch._functorch", "torch._inductor", "torch._subclasses", "torch.fx")


@contextmanager
def silent() -> Iterator[None]:
    """Torch's compiler keeps its lines to itself, but those that the user asked for.

    The caller keeps others from tracing.
    """
    loggers = [logging.getLogger(name) for name in _TALKERS]
    before = [logger.level for logger in loggers]
    for logger, level in zip(loggers, before, strict=True):
        if level in (logging.NOTSET, logging.WARNING):
            logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
