"""The peak memory of one way to take steps, in a process of its own; ``ensemble.py`` starts it.

Run: python benchmarks/peak.py "ours jitted step" 1000 10

The baseline is what the process holds after it has imported all and taken steps with one member, so
that compilers are loaded. Printed in MiB: how much more there was at most until the steps of all
members were compiled and taken, and how much more while steps were taken afterwards. The
second is the peak that Linux gives once it is told to forget the peak before it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

from members import WAYS, Problem
from timing import one_thread

STEPS = 5


def _resident(what: str) -> float:
    """A figure of this process, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    return float("nan")


def _forget() -> None:
    """Give free memory back, and let the peak begin anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def main(what: str, members: int, block: int) -> None:
    """Print both peaks."""
    one_thread()
    first = WAYS[what](Problem(1, block))
    first.take(2 * block)
    del first
    _forget()
    baseline = _resident("VmRSS")
    way = WAYS[what](Problem(members, block))
    way.take(block)
    # Not getrusage's ru_maxrss, into which the process that started this one counts.
    whole = _resident("VmHWM")
    _forget()
    way.take(max(STEPS, block))
    found = {"whole": whole - baseline, "steps": _resident("VmHWM") - baseline}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
