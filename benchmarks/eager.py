"""What eager purepyro costs beside Pyro and plain torch, in one process and on one thread.

Each pair is timed in turn, many times, and the figure is the ratio of the medians: absolute times
of a shared machine say little. Prints a Markdown table and writes it with the raw medians as JSON.

Run: python benchmarks/eager.py [file for the JSON]
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pyro
import pyro.distributions as dist
import torch
import torchopt
from pyro import poutine
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from torch import Tensor

from purepyro import Module, PyroSample, random, trace
from purepyro.infer import SVI, AutoNormal

REPEATS = 200


class Regression(Module):
    """100 rows, 3 columns; weight N(0, 1), bias N(0, 10), noise HalfNormal(1)."""

    bias = PyroSample(dist.Normal(0.0, 10.0))
    noise = PyroSample(dist.HalfNormal(1.0))
    weight = PyroSample(lambda: dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean, noise = (x @ self.weight.mT).squeeze(-1) + self.bias, self.noise
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, noise), obs=y)


@attrs.frozen
class Pair:
    """Two ways to the same result."""

    what: str
    ours: Callable[[], object]
    beside: str
    theirs: Callable[[], object]


def pairs() -> list[Pair]:
    """What is compared."""
    x = random.normal(random.key(0), 100, 3)
    y = x.sum(-1)
    model, key = Regression(), random.key(1)
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01))
    state = svi.init(key, x, y)
    pyro.clear_param_store()
    pyro_svi = PyroSVI(model, PyroAutoNormal(model), pyro.optim.Adam({"lr": 0.01}), PyroTraceELBO())
    handler = poutine.trace(model)

    def pyro_trace() -> Tensor:
        return handler.get_trace(x, y).log_prob_sum()

    normal = dist.Normal(torch.zeros(100), 1.0)
    return [
        Pair(
            "100 normals", lambda: random.normal(key, 100), "torch.randn", lambda: torch.randn(100)
        ),
        Pair(
            "100 numbers of a Normal", lambda: random.sample(key, normal), "rsample", normal.rsample
        ),
        Pair("trace of the regression", lambda: trace(model, {}, key, x, y), "Pyro", pyro_trace),
        Pair("SVI step", lambda: svi.step(state, x, y), "Pyro", lambda: pyro_svi.step(x, y)),
    ]


def seconds(fn: Callable[[], object]) -> float:
    """One call."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def main(path: Path) -> None:
    """Time all pairs, print and write."""
    torch.set_num_threads(1)
    rows = []
    for pair in pairs():
        for _ in range(20):
            pair.ours(), pair.theirs()
        times = [(seconds(pair.ours), seconds(pair.theirs)) for _ in range(REPEATS)]
        ours, theirs = (statistics.median(column) * 1e6 for column in zip(*times, strict=True))
        rows.append(
            {"what": pair.what, "beside": pair.beside, "ours_us": ours, "theirs_us": theirs}
        )
    print(f"{platform.machine()}, one thread, torch {torch.__version__}, medians of {REPEATS}\n")
    print("| what | ours, µs | beside | theirs, µs | ours / theirs |\n|---|---|---|---|---|")
    for row in rows:
        ours, theirs = float(row["ours_us"]), float(row["theirs_us"])
        print(
            f"| {row['what']} | {ours:.0f} | {row['beside']} | {theirs:.0f} | {ours / theirs:.2f} |"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/eager.json"))
