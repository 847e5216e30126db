"""What all benchmarks share: one thread, interleaved repetitions, medians, and the tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import ParamSpec, Protocol, TypeAlias

import attrs
import torch

P = ParamSpec("P")

Row: TypeAlias = Mapping[str, str | float]

OUT = Path("out")
BURST_SECONDS = 0.02


def one_thread() -> None:
    """One core and one thread, for torch and jax; to be called before jax does anything."""
    os.environ["XLA_FLAGS"] = (
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
        + os.environ.get("XLA_FLAGS", "")
    )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)


def seconds(fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """The time of one call."""
    start = time.perf_counter()
    fn(*args, **kwargs)
    return time.perf_counter() - start


class Way(Protocol):
    """A way to take steps."""

    @property
    def what(self) -> str:
        """How the tables call it."""
        ...

    def take(self, count: int) -> object:
        """Take so many steps, and wait for the last."""
        ...


def step_times(ways: Sequence[Way], repeats: int = 30) -> dict[str, float]:
    """Median seconds a step, of bursts of steps taken in turn."""
    bursts: dict[str, int] = {}
    for way in ways:
        way.take(3)  # compiles
        step = seconds(way.take, 5) / 5
        bursts[way.what] = max(1, min(1_000, int(BURST_SECONDS / step)))
        way.take(bursts[way.what])
    times: dict[str, list[float]] = {way.what: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            count = bursts[way.what]
            times[way.what].append(seconds(way.take, count) / count)
    return {what: statistics.median(each) for what, each in times.items()}


@attrs.frozen
class RunTime:
    """What a run costs.

    Attributes:
        step: Seconds a step: the slope between a short and a long run.
        short: Seconds of the short run, all of the call.
        steps: How many steps the two runs had.
    """

    step: float
    short: float
    steps: tuple[int, int]


def run_times(
    ways: Sequence[Way], block: int, *, repeats: int = 5, least: float = 2.0
) -> dict[str, RunTime]:
    """The slope of each way's time over its number of steps, the runs taken in turn.

    A slope, since a call also does what is not a step: NumPyro's compiles anew each time. The short
    run has ``block`` steps, the long one a multiple, and takes ``least`` seconds more.
    """
    longs = {way.what: _long(way, block, least) for way in ways}
    shorts: dict[str, list[float]] = {way.what: [] for way in ways}
    slopes: dict[str, list[float]] = {way.what: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            long = longs[way.what]
            first, second = seconds(way.take, block), seconds(way.take, long)
            shorts[way.what].append(first)
            slopes[way.what].append((second - first) / (long - block))
    return {
        what: RunTime(
            statistics.median(slopes[what]), statistics.median(shorts[what]), (block, long)
        )
        for what, long in longs.items()
    }


def _long(way: Way, block: int, least: float) -> int:
    way.take(block)  # compiles
    base, blocks = _least(way, block), 2
    while True:
        extra = _least(way, block + blocks * block) - base
        if extra >= least or blocks >= 2_000:
            return block + blocks * block
        wanted = 1.3 * blocks * least / max(extra, 1e-9)
        blocks = int(max(2 * blocks, min(20 * blocks, wanted)))


def _least(way: Way, count: int) -> float:
    # Of two, since one slow compilation would pass for steps.
    return min(seconds(way.take, count), seconds(way.take, count))


def machine() -> dict[str, str]:
    """When and on what: versions and the kind of machine, never its name."""
    versions = {name: _version(name) for name in ("torch", "pyro-ppl", "jax", "numpyro")}
    kind = f"{platform.machine()}, {os.cpu_count()} cores, one used"
    return {"date": date.today().isoformat(), "machine": kind, **versions}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def micro(value: float) -> str:
    """Seconds as microseconds, to three digits."""
    scaled = value * 1e6
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.3g}"


def ratio(value: float) -> str:
    """To three digits at most."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def table(rows: Sequence[Row]) -> str:
    """Rows with the same columns, as Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def report(name: str, tables: Mapping[str, Sequence[Row]], raw: object) -> None:
    """Print the tables, and write them and the raw figures into ``out/``."""
    facts = machine()
    head = ", ".join(f"{what} {is_}" for what, is_ in facts.items())
    parts = [f"# {name}", head, *(f"## {title}\n\n{table(t)}" for title, t in tables.items())]
    text = "\n\n".join(parts) + "\n"
    print(text)
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.md").write_text(text)
    figures = {"machine": facts, "tables": dict(tables), "raw": raw}
    (OUT / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
