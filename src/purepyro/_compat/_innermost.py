"""Which keyed block is the innermost in each thread.

Runs put this back after an interrupt together with what torch itself keeps for a thread, so it lies
beside that and below :mod:`purepyro.random`, whose blocks set it.
"""

from __future__ import annotations

import threading

from torch.overrides import TorchFunctionMode


class Innermost(threading.local):
    """The mode of the innermost keyed block of this thread; ``None`` outside of all of them."""

    mode: TorchFunctionMode | None = None


INNERMOST = Innermost()
