"""Who is compared: each a way to take steps on a problem, and the losses from the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import torch
import torchopt
from floor import Floor, Run
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO as NumPyroTraceELBO
from numpyro.infer import init_to_feasible
from numpyro.infer.autoguide import AutoNormal as NumPyroAutoNormal
from pyro.infer import SVI as PyroSVI
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal

from models import Problem
from purepyro import jit, random
from purepyro.infer import SVI, AutoNormal

EAGER, JITTED, RUN = "ours eager", "ours jitted", "ours run"
PYRO, NUMPYRO, NUMPYRO_RUN = "Pyro", "NumPyro jitted update", "NumPyro run"
FLOOR, FLOOR_RUN = "floor step", "floor run"


@attrs.define
class Loop:
    """Steps called from Python, one after the other."""

    what: str
    init: Callable[[], Any]
    step: Callable[[Any], tuple[Any, Any]]
    state: Any = None

    def take(self, count: int) -> None:
        """Go on from the last state."""
        state = self.init() if self.state is None else self.state
        for _ in range(count):
            state, loss = self.step(state)
        float(loss)
        self.state = state

    def losses(self, count: int) -> np.ndarray:
        """From the start."""
        state, losses = self.init(), []
        for _ in range(count):
            state, loss = self.step(state)
            losses.append(loss)
        return np.array([float(loss) for loss in losses])


@attrs.frozen
class Runner:
    """One call for many steps, always from the start."""

    what: str
    losses: Callable[[int], np.ndarray]

    def take(self, count: int) -> None:
        """Start anew."""
        self.losses(count)


def ours_eager(problem: Problem) -> Loop:
    return _ours(problem, EAGER, jitted=False)


def ours_jitted(problem: Problem) -> Loop:
    return _ours(problem, JITTED, jitted=True)


def _ours(problem: Problem, what: str, *, jitted: bool) -> Loop:
    data, model = _tensors(problem), problem.ours
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), progress_bar=False)
    step = jit(svi.step) if jitted else svi.step
    return Loop(what, lambda: svi.init(random.key(0), *data), lambda state: step(state, *data))


def ours_run(problem: Problem) -> Runner:
    data, model = _tensors(problem), problem.ours
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), compiled=True, progress_bar=False)
    return Runner(RUN, lambda count: svi.run(random.key(0), count, *data).losses.numpy())


def pyro_steps(problem: Problem) -> Loop:
    data, model = _tensors(problem), problem.ours

    def init() -> PyroSVI:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        return PyroSVI(model, PyroAutoNormal(model), pyro.optim.Adam({"lr": 0.01}), PyroTraceELBO())

    return Loop(PYRO, init, lambda svi: (svi, svi.step(*data)))


def numpyro_update(problem: Problem) -> Loop:
    svi, data = _numpyro_svi(problem), _arrays(problem)
    update = jax.jit(svi.update)
    return Loop(
        NUMPYRO,
        lambda: svi.init(jax.random.PRNGKey(0), *data),
        lambda state: update(state, *data),
    )


def numpyro_run(problem: Problem) -> Runner:
    svi, data = _numpyro_svi(problem), _arrays(problem)

    def losses(count: int) -> np.ndarray:
        result = svi.run(jax.random.PRNGKey(0), count, *data, progress_bar=False)
        return np.asarray(jax.block_until_ready(result).losses)

    return Runner(NUMPYRO_RUN, losses)


def floor_steps(problem: Problem) -> Loop:
    floor = Floor(problem)
    return Loop(FLOOR, floor.init, floor.compiled_step())


def floor_run(run: Run) -> Runner:
    return Runner(FLOOR_RUN, run)


def check(
    problem: Problem, contenders: list[Loop | Runner], count: int = 2_000
) -> dict[str, float]:
    """The mean of the last 200 losses of each.

    Raises:
        SystemExit: if they do not agree, since then not the same thing was timed.
    """
    torch.manual_seed(0)
    last = {each.what: float(each.losses(count)[-200:].mean()) for each in contenders}
    middle = float(np.median(list(last.values())))
    far = max(abs(value - middle) for value in last.values()) / abs(middle)
    if not far <= problem.tolerance:
        raise SystemExit(
            f"{problem.name}: after {count:,} steps the losses lie {far:.1%} apart, which is more "
            f"than {problem.tolerance:.1%}: {last}. So not the same thing was timed."
        )
    return last


def _tensors(problem: Problem) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in problem.arrays)


def _arrays(problem: Problem) -> tuple[jax.Array, ...]:
    return tuple(
        jnp.asarray(array, jnp.int32 if array.dtype == np.int64 else None)
        for array in problem.arrays
    )


def _numpyro_svi(problem: Problem) -> NumPyroSVI:
    guide = NumPyroAutoNormal(problem.numpyro, init_loc_fn=init_to_feasible)
    return NumPyroSVI(problem.numpyro, guide, numpyro.optim.Adam(0.01), NumPyroTraceELBO())
