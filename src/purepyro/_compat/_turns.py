"""Runs take turns, since the rest of Pyro's state is the process's; how it comes back after one.

Ctrl-C can come between any two steps of Python, inside of ``__exit__`` and ``finally`` as well. So
nothing here relies on a block's end being reached: what was is *read* before anything is changed,
and put back by steps that can be done twice. They *are* done twice, the second time in the
``finally`` of the first, so one interrupt cannot hit both. A lock is taken, and noted, in a single
call into C, which is never interrupted half way; so is its release.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import call
from typing import Any

import pyro
import pyro.nn.module as pyro_module
from pyro.distributions import util as distributions_util
from pyro.infer import util as infer_util
from pyro.poutine import runtime
from pyro.poutine import util as poutine_util
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution as TorchDistribution

from ._handlers import ENUMERATED, OWN, begin
from ._messages import Msg
from ._private import Missing, held, private_or

# Runs take turns. Re-entrant: a model may itself call `apply`.
RUN_LOCK: Any = threading.RLock()

# Each part of Pyro has its own switch for checks of values.
_PARTS: tuple[Any, ...] = (distributions_util, infer_util, poutine_util)
_PYRO_MODULE: Any = pyro_module
_RUNTIME: Any = runtime
_LOCAL = "_MODULE_LOCAL_PARAMS"
private_or(
    "pyro.nn.module:_MODULE_LOCAL_PARAMS", None, "inside a run PyroModules keep parameters apart"
)
_ENUMERATED: dict[str, object] = {} if isinstance(ENUMERATED, Missing) else vars(ENUMERATED)


class Shared:
    """What there was of Pyro's process-wide state before a run, or a block, changed it."""

    def __init__(self) -> None:
        self._own = OWN.handlers, OWN.plates, OWN.store
        self._enumerated = dict(_ENUMERATED)
        self.default = runtime.default_process_message
        self._local_params = vars(_PYRO_MODULE).get(_LOCAL)
        self.validates: bool = held(TorchDistribution, "_validate_args", "runs")
        self._switches = [part.is_validation_enabled() for part in _PARTS]

    def put_back(self) -> None:
        """Make it so again; nothing happens the second time."""
        OWN.handlers, OWN.plates, OWN.store = self._own
        if self._enumerated != _ENUMERATED:
            _ENUMERATED.update(self._enumerated)
            for name in _ENUMERATED.keys() - self._enumerated.keys():
                del _ENUMERATED[name]
        runtime.default_process_message = self.default
        setattr(_PYRO_MODULE, _LOCAL, self._local_params)
        for part, switch in zip(_PARTS, self._switches, strict=True):
            part.enable_validation(switch)
        TorchDistribution.set_default_validate_args(self.validates)  # one of the parts set it, too


# For each time that the lock is held: what there was before, or that nothing was read yet.
_LEVELS: list[Shared | bool] = []


def take_turn() -> Shared:
    """Wait for this thread's turn, and note what there is; ``end_turns()`` is its end."""
    _LEVELS.extend(map(RUN_LOCK.acquire, (True,)))  # both in one call
    before = _LEVELS[-1] = Shared()
    return before


def turns_taken() -> int:
    """How many turns this thread has taken, each within the one before."""
    return len(_LEVELS) if RUN_LOCK._is_owned() else 0


def end_turns(down_to: int) -> None:
    """Put back what was, and let others have their turn, until this thread has so many left."""
    while RUN_LOCK._is_owned() and len(_LEVELS) > down_to:
        before = _LEVELS[-1]
        if isinstance(before, Shared):
            before.put_back()
        deque(map(call, (_LEVELS.pop, RUN_LOCK.release)), maxlen=0)  # both in one call


def isolate(messenger: Messenger, process: Callable[[Msg], None], *, blind: bool) -> None:
    """From here to the end of this turn, Pyro's process-wide state belongs to one run alone.

    The handler stack holds only ``messenger``, no plate dimension is taken, the parameter store is
    an empty one (PyroModules leave notes there), and ``process`` serves every message that no
    handler served, in place of Pyro's default, which reads the store and torch's global generator.
    Serving the default, rather than being a handler, is what reaches the sites that
    ``poutine.block`` hides.

    Args:
        messenger: The handler at the bottom of the stack.
        process: Serves a message. It is called in other threads too, whose messages are none of
            the run's: there ``OWN`` has no handlers.
        blind: Whether values cannot be looked at, so that distributions must not validate.
    """
    begin(messenger)
    _RUNTIME.default_process_message = process
    if blind:  # a check of values would end the trace, or the vmap
        TorchDistribution.set_default_validate_args(False)
    setattr(_PYRO_MODULE, _LOCAL, False)


@contextmanager
def unvalidated() -> Iterator[None]:
    """A block of code in which Pyro and torch check no values of distributions.

    The switches are process-wide, so other runs wait until they are back.
    """
    turns = turns_taken()
    try:
        take_turn()
        pyro.enable_validation(False)
        yield
    finally:
        try:
            end_turns(turns)
        finally:
            end_turns(turns)


def _in_child() -> None:
    """A forked child has one thread: if another one was in a run, that run is over here."""
    if not RUN_LOCK._is_owned():
        if _LEVELS and isinstance(_LEVELS[0], Shared):
            _LEVELS[0].put_back()
        _LEVELS.clear()
        RUN_LOCK._at_fork_reinit()


os.register_at_fork(after_in_child=_in_child)
