"""What each pass of the compiler gains, and what it costs: the compiler with one of them left out.

A pass stays if a result needs it to be right, or if a step of some workload takes 15 % longer
without it. It goes if it does neither, or if a run of 10,000 steps saves less than the pass takes
to compile.

Each pair of a workload and a pass is a process of its own, with empty caches, and compiles alone.
Then all processes of a workload take steps in turn, and the least time of each counts. All times
are those of the processor (of the C++ compiler too), since the clock of a shared machine says
little. A pass that leaves the graphs of a workload as they are is not measured there.

Run: python benchmarks/ablation.py [workload ...] [-pass ...] [-pass+pass ...]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import members
import torch
import torchopt
from timing import Row, micro, one_thread, ratio, report
from torch import Tensor, fx

import models
from purepyro import jit, random
from purepyro._compile import _trace
from purepyro._compile.inductor import _backend, _cpp_buffers, _inductor
from purepyro._compile.passes import _horizontal, _pack, _sequence, _tanh
from purepyro._compile.scan import _blocks, _hoist, _partition
from purepyro.infer import SVI, AutoNormal

REPEATS = 9
STEPS = 10_000
WHOLE = "the whole"
# What a process says, in place of figures, of a graph that a pass leaves as it is.
SAME = "same"


# -------------------------------------------------------------------------------------- the passes


def _nothing(*_: object) -> None:
    """In place of a pass that changes a graph."""


def _unchanged(given: object) -> object:
    """In place of a pass that returns a graph."""
    return given


def _side_by_side(fuser: _horizontal.HorizontalFuser, nodes: Sequence[fx.Node], *_: int) -> fx.Node:
    """In place of the fusion of what some nodes are computed from."""
    return fuser._builder.join(nodes)


def _without_horizontal_fusion() -> None:
    _set(_horizontal.HorizontalFuser, "joined", _side_by_side)
    _set(_partition, "fuse_sums", _nothing)


def _without_joint_draws() -> None:
    for home in (_hoist, _blocks):
        _set(home, "with_merged_draws", _unchanged)


def _set(owner: object, name: str, value: object) -> None:
    """Exchange something that is there."""
    getattr(owner, name)
    setattr(owner, name, value)


PASSES: Mapping[str, Callable[[], None]] = {
    "hoist": lambda: _set(_partition.StateClasses, "at", lambda self, state: self.all_carried()),
    "equal counters": lambda: _set(_partition.StateClasses, "at", lambda self, state: self),
    "merge_draws": _without_joint_draws,
    "horizontal": _without_horizontal_fusion,
    "horizontal_sums": lambda: _set(_partition, "fuse_sums", _nothing),
    "horizontal: slices": lambda: _set(_horizontal.HorizontalFuser, "_slice", _nothing),
    "pack": lambda: _set(_pack, "SMALL", -1),
    "small_products": lambda: _set(_sequence, "with_small_products_fused", _nothing),
    "transposed_products": lambda: _set(_sequence, "with_transposed_products", _nothing),
    "tanh": lambda: _set(_sequence, "with_quick_tanh", _nothing),
    "materialize": lambda: _set(_tanh, "materialize", _nothing),
    "triangles": lambda: _set(_backend, "with_selected_triangles", _nothing),
    "functionalize": lambda: _set(_trace, "made_functional", lambda graph: False),
}
"""Each pass of the compiler, and how to leave it out."""

OVERRIDES: Mapping[str, Callable[[], None]] = {
    "cpp_buffers": lambda: _set(_inductor, "quick_buffers", lambda: nullcontext({})),
    "cpp_buffers: reused memory": lambda: _set(
        _cpp_buffers.QuickBuffers, "_can_reuse_memory", lambda self, buffer: False
    ),
    "cpp_buffers: light optimisation": lambda: _set(_cpp_buffers, "_LIGHTLY", ""),
}
"""The same for what is overridden of Inductor, which no graph shows."""


# ----------------------------------------------------------------------------------- the workloads


@attrs.frozen
class Workload:
    """Something that is run.

    Attributes:
        make: Gives a function that takes so many steps, from the start.
        short: Steps of a short run. A step's time is the slope from there to a long run.
        long: Steps of that.
    """

    make: Callable[[], Callable[[int], object]]
    short: int
    long: int


def _run_of(problem: models.Problem) -> Callable[[int], object]:
    data, model = [torch.from_numpy(array) for array in problem.arrays], problem.ours
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), compiled=True, progress_bar=False)
    return lambda count: svi.run(random.key(0), count, *data)


def _run_of_members(count: int) -> Callable[[int], object]:
    return members.ours_run(members.Problem(count, 1)).take


WORKLOADS: Mapping[str, Workload] = {
    "regression": Workload(lambda: _run_of(models.regression()), 2_048, 65_536),
    "30 sites": Workload(lambda: _run_of(models.sites(30)), 2_048, 32_768),
    "network": Workload(lambda: _run_of(models.network()), 64, 512),
    "process": Workload(lambda: _run_of(models.process()), 256, 2_048),
    "10 members": Workload(lambda: _run_of_members(10), 64, 1_024),
    "1,000 members": Workload(lambda: _run_of_members(1_000), 4, 16),
}


# ----------------------------------------------------------------------------- a process of its own


def child(workload: str, without: str, known: str) -> None:
    """Compile, tell what that took, and take steps whenever a line comes in.

    Args:
        workload: What to run.
        without: The pass to leave out.
        known: A mark of the graph of the whole; empty if this is it.
    """
    one_thread()
    jit(lambda x: x + 1)(torch.zeros(3))  # imports the compiler
    left_out = without.split("+")
    for name in left_out:
        {WHOLE: _nothing, **PASSES, **OVERRIDES}[name]()
    marks: list[str] = []

    def marked(module: fx.GraphModule, inputs: Sequence[Tensor], mark: str) -> _inductor.Run:
        marks.append(mark)
        if mark == known and OVERRIDES.keys().isdisjoint(left_out):
            _say({"mark": SAME})
            sys.exit()
        return compiler(module, inputs, mark)

    compiler = _backend.inductor
    _set(_backend, "inductor", marked)
    of = WORKLOADS[workload]
    run = of.make()
    before, wall = _spent(), time.perf_counter()
    run(1)
    took = {"compile": _spent() - before, "wall": time.perf_counter() - wall, "mark": marks[-1]}
    run(of.short)
    _say(took)
    for _ in sys.stdin:
        _say({"times": [_timed(run, of.short), _timed(run, of.long)]})


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


def _timed(run: Callable[[int], object], count: int) -> float:
    start = time.process_time()
    run(count)
    return time.process_time() - start


def _spent() -> float:
    """Seconds of the processor, of this process and of those that it started."""
    kinds = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(kind.ru_utime + kind.ru_stime for kind in kinds)


# -------------------------------------------------------------------------------------- the figures


@attrs.frozen
class Figures:
    """Seconds of the processor.

    Attributes:
        step: Of one step; none if the graph is the same as the whole's.
        compile: Up to the first step.
    """

    step: float
    compile: float

    def row(self, whole: Figures) -> Row:
        """A line of the table, beside the whole."""
        saved = STEPS * (self.step - whole.step)
        return {
            "µs a step": micro(self.step),
            "/ the whole": ratio(self.step / whole.step),
            "s to compile": f"{self.compile:.1f}",
            "more than the whole": f"{self.compile - whole.compile:+.1f}",
            f"a pass gains in {STEPS:,} steps, s": f"{saved + self.compile - whole.compile:+.2f}",
        }


def measure(workload: str, passes: Sequence[str]) -> dict[str, Figures | None]:
    """One workload, whole and without each of the passes; ``None``: the same graph."""
    of = WORKLOADS[workload]
    with TemporaryDirectory() as folder:
        started: dict[str, subprocess.Popen[str]] = {}
        said: dict[str, Any] = {}
        for what in (WHOLE, *passes):
            known = said[WHOLE]["mark"] if said else ""
            started[what] = _start(workload, what, known, Path(folder) / what.replace(" ", "_"))
            said[what] = _heard(started[what])
            print(f"{workload}, {what}: {said[what]}", file=sys.stderr, flush=True)
        living = {what: child for what, child in started.items() if said[what]["mark"] != SAME}
        times: dict[str, list[list[float]]] = {what: [] for what in living}
        for _ in range(REPEATS):
            for what, process in living.items():
                times[what].append(_heard(process, "go")["times"])
        for process in started.values():
            process.communicate()
    found: dict[str, Figures | None] = dict.fromkeys(started)
    for what, each in times.items():
        short, long = (min(column) for column in zip(*each, strict=True))
        found[what] = Figures((long - short) / (of.long - of.short), said[what]["compile"])
    return found


def _start(workload: str, without: str, known: str, caches: Path) -> subprocess.Popen[str]:
    for name in ("inductor", "tmp"):
        (caches / name).mkdir(parents=True)
    own = {"TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"), "TMPDIR": str(caches / "tmp")}
    return subprocess.Popen(
        [sys.executable, __file__, "--child", workload, without, known],
        env=os.environ | own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _heard(process: subprocess.Popen[str], ask: str = "") -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise SystemExit("A process has no pipes.")
    if ask:
        process.stdin.write(f"{ask}\n")
        process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def main() -> None:
    """Measure, print and write."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    asked = sys.argv[1:]
    passes = [name[1:] for name in asked if name.startswith("-")] or [*PASSES, *OVERRIDES]
    workloads = [name for name in asked if not name.startswith("-")] or [*WORKLOADS]
    tables: dict[str, list[Row]] = {}
    raw: dict[str, object] = {}
    for workload in workloads:
        found = measure(workload, passes)
        whole = found[WHOLE]
        if whole is None:
            raise SystemExit(f"{workload} was not measured.")
        tables[workload] = [
            {"without": what, **figures.row(whole)} for what, figures in found.items() if figures
        ]
        raw[workload] = {what: figures and attrs.asdict(figures) for what, figures in found.items()}
        report("ablation", tables, raw)


if __name__ == "__main__":
    main()
