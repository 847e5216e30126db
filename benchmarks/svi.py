"""Steps and runs of SVI on four models: ours, NumPyro, Pyro and torch by hand, in one process.

Run: python benchmarks/svi.py [model ...]
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


@attrs.frozen
class Result:
    """All about one model, in seconds."""

    problem: str
    steps: dict[str, float]
    runs: dict[str, RunTime]
    floor_how: str
    floor_tried: dict[str, tuple[float, float]]
    losses: dict[str, float]


def measure(problem: Problem) -> Result:
    """Check that all do the same, then time them."""
    torch.compiler.reset()  # it counts compilations of one function, whatever the problem
    fastest, tried = Floor(problem).fastest()
    steps = [
        who.ours_eager(problem),
        who.ours_jitted(problem),
        who.numpyro_update(problem),
        who.pyro_steps(problem),
        who.floor_steps(problem),
    ]
    runs = [who.ours_run(problem), who.numpyro_run(problem), who.floor_run(fastest)]
    losses = who.check(problem, [*steps, *runs])
    times = step_times(steps)
    return Result(problem.name, times, run_times(runs, problem.block), fastest.how, tried, losses)


def asked(results: list[Result]) -> list[dict[str, str]]:
    """The rows of the compiler's goals that this script measures."""
    rows = []
    first = next((each for each in results if each.problem == "regression"), None)
    if first is not None:
        steps, runs = first.steps, {what: each.step for what, each in first.runs.items()}
        rows = [
            _goal("jitted step / NumPyro's jitted update", steps, who.JITTED, who.NUMPYRO, "<= 1"),
            _goal("run per step / NumPyro's run per step", runs, who.RUN, who.NUMPYRO_RUN, "<= 1"),
            _goal("Pyro's step / jitted step", steps, who.PYRO, who.JITTED, ">= 50"),
            _goal("eager step / Pyro's step", steps, who.EAGER, who.PYRO, "<= 1"),
        ]
    for each in results:
        runs = {what: run.step for what, run in each.runs.items()}
        what = f"run / hand-written floor, {each.problem}"
        rows.append(_goal(what, runs, who.RUN, who.FLOOR_RUN, "<= 1.3"))
    return rows


def _goal(what: str, times: dict[str, float], above: str, below: str, asked: str) -> dict[str, str]:
    return {"figure": what, "asked": asked, "measured": ratio(times[above] / times[below])}


def main(names: list[str]) -> None:
    """Measure all models or some, print and write."""
    one_thread()
    problems = [each for each in models.standard() if not names or each.name in names]
    results = [measure(problem) for problem in problems]
    steps = [
        {"µs a step": each.problem} | {what: micro(time) for what, time in each.steps.items()}
        for each in results
    ]
    runs = [
        {"µs a step of a run": each.problem}
        | {what: micro(run.step) for what, run in each.runs.items()}
        | {"the floor is": each.floor_how}
        for each in results
    ]
    calls = [
        {"seconds of a whole call": f"{each.problem}, {problem.block:,} steps"}
        | {what: f"{run.short:.2f}" for what, run in each.runs.items()}
        for each, problem in zip(results, problems, strict=True)
    ]
    losses = [
        {"mean of the last 200 of 2,000 losses": each.problem}
        | {what: f"{loss:.1f}" for what, loss in each.losses.items()}
        for each in results
    ]
    tables = {
        "Steps": steps,
        "Runs": runs,
        "Whole calls, all compiled before": calls,
        "Losses": losses,
        "Goals": asked(results),
    }
    report("svi", tables, [attrs.asdict(each) for each in results])


if __name__ == "__main__":
    main(sys.argv[1:])
