"""Training many networks at once: time and memory against the number of members.

Run: python benchmarks/ensemble.py [members ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import attrs
import members as who
import numpy as np
import torch
from members import Problem
from timing import OUT, RunTime, micro, one_thread, ratio, report, run_times, step_times

SIZES = (1, 10, 100, 1_000)
# All data in each step, and a batch of them: of as many rows as the regression of `svi.py` has.
ROWS = (who.ALL_ROWS, 100)
# A block of steps takes about as long whatever the number of members.
BLOCKS = {1: 100, 10: 100, 100: 20, 1_000: 10}
REPEATS = {1: 30, 10: 30, 100: 20, 1_000: 10}
TOLERANCE = 0.01
# Whose memory is looked at, each in a process of its own.
MEASURED = (who.STEP, who.JAX_STEP, who.FLOOR_STEP)
SHOWN = {
    who.STEP: ("C0", "-"),
    who.RUN: ("C0", "--"),
    who.JAX_STEP: ("C1", "-"),
    who.JAX_RUN: ("C1", "--"),
    who.FLOOR_STEP: ("0.45", "-"),
    who.FLOOR_RUN: ("0.45", "--"),
    who.PYRO: ("C3", "-"),
}


@attrs.frozen
class Result:
    """All about one number of members and of rows, in seconds and MiB."""

    members: int
    rows: int
    steps: dict[str, float]
    runs: dict[str, RunTime]
    memory: dict[str, dict[str, float]]

    @property
    def size(self) -> str:
        """What was measured, in words."""
        return f"{self.members:,} members, {self.rows} rows"

    @property
    def times(self) -> dict[str, float]:
        """Seconds a step of all members, of steps and of runs."""
        return self.steps | {what: run.step for what, run in self.runs.items()}


def check(problem: Problem, ways: list[who.Loop | who.Blocks]) -> None:
    """After 100 steps each member has the same loss with all, or the same to 0.01 a row.

    Raises:
        SystemExit: if not, since then not the same thing was timed.
    """
    count = max(100 // problem.block, 1) * problem.block
    last = {way.what: way.losses(count) for way in ways}
    middle = np.median(np.stack([each[: who.PYRO_MEMBERS] for each in last.values()]), axis=0)
    for what, each in last.items():
        size = np.maximum(np.abs(middle), problem.rows)  # a loss may be near zero
        far = float((np.abs(each[: len(middle)] - middle) / size).max())
        if not far <= TOLERANCE:
            raise SystemExit(
                f"{problem.members} members, {problem.rows} rows: after {count} steps the losses "
                f"of {what!r} are off by {far:.1%}, more than {TOLERANCE:.1%}. So not the same "
                "thing was timed."
            )


def measure(members: int, rows: int) -> Result:
    """Check that all do the same, then time them, then look at their memory."""
    torch.compiler.reset()
    problem = Problem(members, BLOCKS.get(members, 20), rows)
    ways = {what: make(problem) for what, make in who.WAYS.items()}
    check(problem, list(ways.values()))
    steps = [way for way in ways.values() if isinstance(way, who.Loop)]
    runs = [way for way in ways.values() if isinstance(way, who.Blocks)]
    times = who.scaled(problem, step_times(steps, REPEATS.get(members, 10)))
    slopes = run_times(runs, problem.block, repeats=3, least=0.5)
    del ways, steps, runs
    looked_at = MEASURED if rows == who.ALL_ROWS else ()
    memory = {what: _peak(what, problem) for what in looked_at}
    return Result(members, rows, times, slopes, memory)


def _peak(what: str, problem: Problem) -> dict[str, float]:
    script = Path(__file__).with_name("peak.py")
    command = [sys.executable, str(script), what, str(problem.members), str(problem.block)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def goals(results: list[Result]) -> list[dict[str, str]]:
    """What was asked for at each size; a ratio of memory means something from 100 members on."""
    rows = []
    for each in results:
        times, memory = each.times, {what: peak["steps"] for what, peak in each.memory.items()}
        asked = [
            ("jitted step / JAX's jitted step", times, who.STEP, who.JAX_STEP, "<= 1 (hoped: 0.6)"),
            ("run / JAX's scan", times, who.RUN, who.JAX_RUN, "<= 1"),
            ("Pyro's loop / jitted step", times, who.PYRO, who.STEP, ">= 100"),
            ("Pyro's loop / run", times, who.PYRO, who.RUN, ">= 100"),
            ("jitted step / floor's step", times, who.STEP, who.FLOOR_STEP, "<= 1.2"),
            ("run / floor's run", times, who.RUN, who.FLOOR_RUN, "<= 1.2"),
        ]
        if memory and each.members >= 100:
            what = "peak memory of steps / floor's"
            asked.append((what, memory, who.STEP, who.FLOOR_STEP, "<= 1.3"))
        rows += [
            {
                "figure": f"{figure}, {each.size}",
                "asked": wanted,
                "measured": ratio(found[above] / found[below]),
            }
            for figure, found, above, below, wanted in asked
        ]
    return rows


def plot(results: list[Result], path: Path) -> None:
    """Time and memory against the number of members, both axes in logarithms."""
    import matplotlib.pyplot as plt

    results = [each for each in results if each.rows == who.ALL_ROWS]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    sizes = [each.members for each in results]
    for what, (color, line) in SHOWN.items():
        style = {"color": color, "linestyle": line, "marker": "o", "markersize": 4, "label": what}
        left.plot(sizes, [1e3 * each.times[what] for each in results], **style)
        if what in MEASURED:
            peaks = [max(each.memory[what]["steps"], 0.1) for each in results]
            right.plot(sizes, peaks, **style)
    left.set(ylabel="one step of all members, ms", title="Time: median, one core")
    right.set(ylabel="peak above the baseline, MiB", title="Memory while steps are taken")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="members", xticks=sizes)
        axes.set_xticklabels([f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    left.legend(frameon=False, fontsize=9)
    right.legend(frameon=False, fontsize=9)
    figure.suptitle("An ensemble of 10-50-1 networks on 442 rows")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(sizes: list[int]) -> None:
    """Measure, print, write and plot."""
    one_thread()
    results = []
    for rows, size in product(ROWS, sizes):
        results.append(measure(size, rows))
        last = results[-1]
        found = ", ".join(f"{what} {micro(time)} µs" for what, time in last.times.items())
        print(f"{last.size}: {found}", file=sys.stderr)
    times = [
        {"µs a step of all": each.size} | {what: micro(time) for what, time in each.times.items()}
        for each in results
    ]
    tables = {"Time": times}
    for what, title in (("steps", "while steps are taken"), ("whole", "with compilation")):
        tables[f"Peak memory {title}"] = [
            {"MiB": f"{each.members:,}"}
            | {name: f"{peak[what]:.0f}" for name, peak in each.memory.items()}
            for each in results
            if each.memory
        ]
    tables["Goals"] = goals(results)
    report("ensemble", tables, [attrs.asdict(each) for each in results])
    plot(results, OUT / "ensemble.png")


if __name__ == "__main__":
    main([int(arg) for arg in sys.argv[1:]] or list(SIZES))
