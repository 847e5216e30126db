"""``python -m peer CHECKOUT``: Pyro's programs under our losses; fails if any differs."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.table import Table

from .checkout import Checkout
from .compare import Case, Row, compare
from .programs import LEFT_OUT, PROGRAMS

# Seconds that a case may take, so that one which hangs is a row and not the end.
_LIMIT = 60


class _TooLongError(BaseException):
    pass


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"not done in {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _examples(checkout: Checkout, only: str) -> Iterator[Row]:
    for program in PROGRAMS:
        if only not in program.path:
            continue
        try:
            for case in program.load(checkout):
                for variant in case.variants:
                    yield _compared(variant)
        except Exception as error:
            yield Row(program.path, "left out", f"cannot be set up: {error!r}"[:300])
    for path, reason in LEFT_OUT.items():
        if only in path:
            yield Row(path, "left out", reason)


def _compared(case: Case) -> Row:
    try:
        with _limited(_LIMIT):
            return compare(case)
    except _TooLongError as error:
        return Row(case.name, "left out", str(error))


def main() -> int:
    """Run all, print the table, and say by the exit status whether anything differs."""
    parser = argparse.ArgumentParser(prog="python -m peer", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a checkout of Pyro's repository")
    parser.add_argument("--only", default="", help="programs whose path has this in it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console(width=None if sys.stdout.isatty() else 160)
    rows: list[Row] = []
    start = time.perf_counter()
    for row in _examples(Checkout(given.checkout.resolve()), given.only):
        rows.append(row)
        print(f"{row.status:10} {row.name}: {row.note}", file=sys.stderr, flush=True)
    table = Table("program", "", "")
    for row in rows:
        table.add_row(row.name, row.status, row.note)
    console.print(table)
    counts = Counter(row.status for row in rows)
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))
    console.print(f"{time.perf_counter() - start:.0f} s")
    return int(counts["different"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
