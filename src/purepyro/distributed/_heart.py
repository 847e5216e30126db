"""A sign of life of each process, and the look for those that give none."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterable

from .._compat._c10d import Store, new_connection

# A beat each second; a process whose heart stands still for so many seconds is gone. It beats in a
# thread, so a process that is busy, or waits, is none of these.
BEAT = 1.0
PATIENCE = 15.0


class Heart:
    """Beats until the process ends, or :meth:`stop`.

    Args:
        prefix: Under which of the store's names.
        rank: Whose heart this is.
    """

    def __init__(self, prefix: str, rank: int) -> None:
        self._store = new_connection(prefix)
        self._name = f"beat/{rank}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="purepyro-heart", daemon=True)
        self._thread.start()
        # A thread inside the store would be cut off in the middle.
        atexit.register(self.stop)

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join()
        atexit.unregister(self.stop)

    def _beat(self) -> None:
        count = 0
        try:
            while not self._stopped.is_set():
                self._store.set(self._name, str(count))
                count += 1
                self._stopped.wait(BEAT)
        except RuntimeError:
            return  # the store is gone, and who waits for this heart sees that too


class Pulse:
    """Watches the hearts of others for as long as one waits for them.

    Args:
        store: Where their beats are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: dict[int, tuple[bytes, float]] = {}

    def still(self, ranks: Iterable[int], patience: float) -> list[int]:
        """Those whose heart stands still for ``patience`` seconds; one that never beat is none."""
        now, found = time.monotonic(), []
        for rank in ranks:
            if not self._store.check([f"beat/{rank}"]):
                continue
            beat = self._store.get(f"beat/{rank}")
            if self._last.get(rank, (b"", now))[0] != beat:
                self._last[rank] = beat, now
            elif now - self._last[rank][1] >= patience:
                found.append(rank)
        return found
