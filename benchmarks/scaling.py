"""How steps and runs of SVI grow with the number of sites and of data rows.

Run: python benchmarks/scaling.py [sites | rows]
"""

from __future__ import annotations

import sys

import attrs
import contenders as who
import torch
from floor import Floor
from timing import RunTime, micro, one_thread, ratio, report, run_times, step_times

import models
from models import Problem

SITES = (1, 3, 10, 30, 100)
ROWS = (100, 1_000, 10_000, 100_000, 1_000_000)


@attrs.frozen
class Result:
    """All about one size, in seconds."""

    problem: str
    steps: dict[str, float]
    runs: dict[str, RunTime]


def measure(problem: Problem) -> Result:
    """Time all; what runs is checked too."""
    torch.compiler.reset()  # it counts compilations of one function, whatever the problem
    runs = [
        who.ours_run(problem),
        who.numpyro_run(problem),
        who.floor_run(Floor(problem).looped()),
    ]
    who.check(problem, list(runs))
    steps = [
        who.ours_eager(problem),
        who.ours_jitted(problem),
        who.numpyro_update(problem),
        who.pyro_steps(problem),
        who.floor_steps(problem),
    ]
    times = step_times(steps, repeats=10)
    return Result(problem.name, times, run_times(runs, problem.block, repeats=2, least=0.5))


def rows_of(results: list[Result]) -> list[dict[str, str]]:
    """A row for each size: microseconds, steps first."""
    return [
        {"µs a step": each.problem}
        | {what: micro(time) for what, time in each.steps.items()}
        | {what: micro(run.step) for what, run in each.runs.items()}
        for each in results
    ]


def goals(results: list[Result]) -> list[dict[str, str]]:
    """The goal that holds for all sizes."""
    return [
        {
            "figure": f"run / hand-written floor, {each.problem}",
            "asked": "<= 1.3",
            "measured": ratio(each.runs[who.RUN].step / each.runs[who.FLOOR_RUN].step),
        }
        for each in results
    ]


def main(names: list[str]) -> None:
    """Measure both or one, print and write."""
    one_thread()
    problems = {
        "sites": [models.sites(number) for number in SITES],
        "rows": [models.regression(number) for number in ROWS],
    }
    results = {
        name: [measure(problem) for problem in each]
        for name, each in problems.items()
        if not names or name in names
    }
    tables = {f"Number of {name}": rows_of(each) for name, each in results.items()}
    tables["Goals"] = goals([each for group in results.values() for each in group])
    raw = {name: [attrs.asdict(each) for each in group] for name, group in results.items()}
    report("scaling", tables, raw)


if __name__ == "__main__":
    main(sys.argv[1:])
