"""What eager purepyro costs beside Pyro and plain torch, in one process and on one thread.

Run: python benchmarks/eager.py
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pyro
import pyro.distributions as dist
import torch
import torchopt
from models_ours import Regression
from pyro import poutine
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from timing import micro, one_thread, ratio, report, step_times
from torch import Tensor

from purepyro import random, trace
from purepyro.infer import SVI, AutoNormal

REPEATS = 30


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


@attrs.frozen
class Calls:
    """Calls without a state, as steps."""

    what: str
    fn: Callable[[], object]

    def take(self, count: int) -> None:
        """Call so often."""
        for _ in range(count):
            self.fn()


def main() -> None:
    """Time all pairs, print and write."""
    one_thread()
    rows, raw = [], []
    for pair in pairs():
        times = step_times([Calls("ours", pair.ours), Calls("theirs", pair.theirs)], REPEATS)
        ours, theirs = times["ours"], times["theirs"]
        raw.append({"what": pair.what, "beside": pair.beside, **times})
        rows.append(
            {
                "what": pair.what,
                "ours, µs": micro(ours),
                "beside": pair.beside,
                "theirs, µs": micro(theirs),
                "ours / theirs": ratio(ours / theirs),
            }
        )
    report("eager", {"Eager": rows}, raw)


if __name__ == "__main__":
    main()
