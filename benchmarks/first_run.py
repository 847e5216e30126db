"""The wait for the first ``svi.run(2_000)`` of a new process, ours and NumPyro's.

Cold: with empty folders for all that Inductor keeps. Warm: with those of a process before. JAX
keeps nothing between processes unless told to, so that NumPyro has one kind of start only. Both get
one core, as everywhere here.

Run: python benchmarks/first_run.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
from timing import one_thread, ratio, report

HERE = Path(__file__).parent
REPEATS = 3
COLD, WARM, NUMPYRO = "ours, cold", "ours, warm", "NumPyro"


@attrs.frozen
class Start:
    """One new process, in seconds."""

    call: float
    process: float
    loss: float


def start(script: str, caches: Path) -> Start:
    """Run a script in a new process that keeps what it compiles in ``caches``."""
    for name in ("inductor", "tmp"):
        (caches / name).mkdir(parents=True, exist_ok=True)
    kept = {"TORCHINDUCTOR_CACHE_DIR": caches / "inductor", "TMPDIR": caches / "tmp"}
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, HERE / script],
        env=os.environ | {name: str(path) for name, path in kept.items()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    took = time.perf_counter() - begin
    said = json.loads(child.stdout.splitlines()[-1])
    return Start(said["call"], took, said["loss"])


def measure() -> dict[str, list[Start]]:
    """Cold, warm and NumPyro in turn."""
    starts: dict[str, list[Start]] = {COLD: [], WARM: [], NUMPYRO: []}
    with TemporaryDirectory() as folder:  # brings the files of the imports into memory
        start("first_numpyro.py", Path(folder))
    for _ in range(REPEATS):
        with TemporaryDirectory() as folder:
            starts[COLD].append(start("first_ours.py", Path(folder)))
            starts[WARM].append(start("first_ours.py", Path(folder)))
            starts[NUMPYRO].append(start("first_numpyro.py", Path(folder)))
    losses = [each.loss for kind in starts.values() for each in kind]
    if max(losses) - min(losses) > 0.02 * abs(statistics.median(losses)):
        raise SystemExit(f"The losses at the end do not agree: {losses}.")
    return starts


def main() -> None:
    """Measure, print and write."""
    one_thread()
    starts = measure()
    call = {kind: statistics.median(each.call for each in all_) for kind, all_ in starts.items()}
    whole = {
        kind: statistics.median(each.process for each in all_) for kind, all_ in starts.items()
    }
    times = [
        {
            "start": kind,
            "the run call, s": f"{call[kind]:.2f}",
            "the whole process with imports, s": f"{whole[kind]:.2f}",
        }
        for kind in starts
    ]
    goals = [
        {
            "figure": f"first svi.run(2,000) / NumPyro's, {what}: {part}",
            "asked": asked,
            "measured": ratio(figures[kind] / figures[NUMPYRO]),
        }
        for kind, what, asked in (
            (WARM, "caches warm", "<= 2"),
            (COLD, "caches cold", "<= 8"),
        )
        for part, figures in (("the call", call), ("the process", whole))
    ]
    raw = {kind: [attrs.asdict(each) for each in all_] for kind, all_ in starts.items()}
    report("first_run", {"Seconds": times, "Goals": goals}, raw)


if __name__ == "__main__":
    main()
