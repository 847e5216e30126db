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
from itertools import chain
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .checkout import Checkout
from .compare import Case, Row, compare
from .programs import LEFT_OUT, PROGRAMS
from .reasons import missing_rows, reason_for
from .upstream import upstream

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
    parser.add_argument("--only", default="", help="examples and tests whose path has this in it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start, rows = time.perf_counter(), []
    checkout = given.checkout.resolve()
    if not (checkout / "examples").is_dir() or not (checkout / "tests").is_dir():
        parser.error(f"{checkout} has no folders examples and tests, so it is no checkout of Pyro")
    for row in chain(_examples(Checkout(checkout), given.only), upstream(checkout, given.only)):
        rows.append(row)
        print(f"{row.status:10} {row.name}: {row.note[:120]}", file=sys.stderr, flush=True)
    bad = _print_table(rows)
    for title in missing_rows():
        bad += 1
        print(f"docs/migration.md has no row {title!r}")
    print(f"{time.perf_counter() - start:.0f} s")
    return int(bad > 0)


def _print_table(rows: list[Row]) -> int:
    """Print what is not equal, then how many are what; return how many should not be so."""
    lines, counts = Counter[tuple[str, str, str]](), Counter[str]()
    for row in rows:
        reason, status, note = None, str(row.status), row.note
        if status in ("refused", "different"):
            reason = reason_for(row.name, note, differs=status == "different")
        if status == "refused" and reason is None:
            status = "refused, not listed"
        elif reason is not None:
            status, note = "as documented" if reason.differs else "refused", reason.title
        counts[status] += row.count
        if status != "equal":
            # What is listed is listed once for all the cases of a test.
            name = row.name if reason is None else row.name.partition(" [")[0]
            lines[name, status, note[:200]] += row.count
    table = Table("program", "cases", "", "")
    for (name, status, note), count in lines.items():
        table.add_row(Text(name), str(count), status, Text(note))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return counts["different"] + counts["refused, not listed"]


if __name__ == "__main__":
    raise SystemExit(main())
