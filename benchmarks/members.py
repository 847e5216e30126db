"""One network, many members: ours, JAX, torch batched by hand, and Pyro one by one.

The network has ten inputs, 50 hidden units and one output, the noise is learnt as well; the loss of
a member is minus the log likelihood of all rows, and Adam has rate 0.01. Everyone starts from the
same numbers, those that ours draws, and takes the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import jax
import jax.numpy as jnp
import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torchopt
from data import Array, floats
from pyro.distributions import constraints
from sklearn.datasets import load_diabetes
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro import Ensemble, Lifted, Module, PyroParam, jit, lift, random
from purepyro.ensemble import EnsembleState
from purepyro.infer import SVI

UNITS = 50
RATE, BETA_1, BETA_2, EPS = 0.01, 0.9, 0.999, 1e-8
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# Of Pyro's loop so many members are run, and the time is scaled to all.
PYRO_MEMBERS = 10

STEP, RUN = "ours jitted step", "ours run"
JAX_STEP, JAX_RUN = "JAX step", "JAX run"
FLOOR_STEP, FLOOR_RUN = "floor step", "floor run"
PYRO = "Pyro's loop"

State: TypeAlias = tuple[Any, ...]
"""The five parameters, and Adam's two moments of each, members first; then the count of steps."""


ALL_ROWS = 442


def diabetes(rows: int = ALL_ROWS) -> tuple[Array, Array]:
    """The first of 442 patients: ten measurements and the score, all standardised."""
    bunch: Any = load_diabetes(scaled=False)
    columns = [(each - each.mean(0)) / each.std(0) for each in (bunch.data, bunch.target)]
    x, y = floats(*columns)
    return x[:rows], y[:rows]


# ------------------------------------------------------------------------------------------- ours


class Regression(Module):
    """The network with noise, as a Module."""

    net: Lifted[[Tensor], Tensor]
    noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = self.net(x).squeeze(-1)
        with pyro.plate("patients", len(x)):
            pyro.sample("score", dist.Normal(mean, self.noise), obs=y)


def network() -> nn.Sequential:
    """Two layers, as torch starts them."""
    return nn.Sequential(nn.Linear(10, UNITS), nn.Tanh(), nn.Linear(UNITS, 1))


def nothing(x: Tensor, y: Tensor | None = None) -> None:
    """A guide for a model without latent sites."""


@attrs.frozen
class Problem:
    """So many members, and their data.

    Attributes:
        members: How many.
        block: Steps of a run's shortest block.
        rows: How many rows a step has.
    """

    members: int
    block: int
    rows: int = ALL_ROWS

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """For torch."""
        x, y = diabetes(self.rows)
        return torch.from_numpy(x), torch.from_numpy(y)

    def ensemble(self) -> Ensemble[[Tensor, Tensor | None]]:
        """As users write it."""
        model = Regression(lift(network(), reinitialize=True))
        svi = SVI(model, nothing, torchopt.adam(RATE), compiled=True, progress_bar=False)
        return Ensemble(svi, progress_bar=False)

    def init(self, ensemble: Ensemble[[Tensor, Tensor | None]]) -> EnsembleState:
        """The same for each size: member ``i`` has the bits of key ``i``."""
        keys = random.split(random.key(0), self.members)
        return ensemble.init(keys, *self.tensors)

    def start(self) -> State:
        """The same numbers for those who work by hand: inputs first, then units."""
        found = self.init(self.ensemble()).svi.params
        weight, bias = found["net.0.weight"].mT.contiguous(), found["net.0.bias"]
        last, shift = found["net.2.weight"][:, 0], found["net.2.bias"]
        params = (weight, bias, last.contiguous(), shift, found["noise"])
        zeros = tuple(map(torch.zeros_like, params))
        return *params, *zeros, *map(torch.zeros_like, params), torch.zeros(())


@attrs.define
class Loop:
    """Steps called from Python, one after the other."""

    what: str
    init: Callable[[], Any]
    step: Callable[[Any], tuple[Any, Any]]
    state: Any = None

    def take(self, count: int) -> None:
        """Go on from the last state, and wait for the last loss."""
        state = self.init() if self.state is None else self.state
        for _ in range(count):
            state, loss = self.step(state)
        np.asarray(loss)
        self.state = state

    def losses(self, count: int) -> Array:
        """The last ones from the start, by member."""
        state = self.init()
        for _ in range(count):
            state, loss = self.step(state)
        return np.asarray(loss)


@attrs.define
class Blocks:
    """Steps taken in blocks, from the start."""

    what: str
    init: Callable[[], Any]
    run: Callable[[Any, int], tuple[Any, Any]]

    def take(self, count: int) -> None:
        """Start anew."""
        self.losses(count)

    def losses(self, count: int) -> Array:
        """The last ones from the start, by member."""
        return np.asarray(self.run(self.init(), count)[1])[-1]


def ours_step(problem: Problem) -> Loop:
    ensemble, data = problem.ensemble(), problem.tensors
    step = jit(ensemble.step)
    return Loop(STEP, lambda: problem.init(ensemble), lambda state: step(state, *data))


def ours_run(problem: Problem) -> Blocks:
    ensemble, data = problem.ensemble(), problem.tensors
    state = problem.init(ensemble)
    return Blocks(RUN, lambda: state, lambda state, n: ensemble.run_from(state, n, *data))


# -------------------------------------------------------------------------------------------- JAX


def _jax_loss(params: tuple[jax.Array, ...], x: jax.Array, y: jax.Array) -> jax.Array:
    weight, bias, last, shift, raw = params
    mean = jnp.tanh(x @ weight + bias) @ last + shift
    standard = (y - mean) * jnp.exp(-raw)
    return jnp.sum(0.5 * standard**2 + raw + HALF_LOG_TAU)


def _jax_step(
    state: tuple[jax.Array, ...], x: jax.Array, y: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    *leaves, count = state
    params, first, second = tuple(leaves[:5]), leaves[5:10], leaves[10:]
    loss, gradients = jax.value_and_grad(_jax_loss)(params, x, y)
    count = count + 1
    new: list[list[jax.Array]] = [[], [], []]
    for value, m, v, gradient in zip(params, first, second, gradients, strict=True):
        m = BETA_1 * m + (1 - BETA_1) * gradient
        v = BETA_2 * v + (1 - BETA_2) * gradient**2
        root = jnp.sqrt(v / (1 - BETA_2**count)) + EPS
        value = value - RATE * m / (1 - BETA_1**count) / root
        for kind, leaf in zip(new, (value, m, v), strict=True):
            kind.append(leaf)
    return (*new[0], *new[1], *new[2], count), loss


def _jax_parts(problem: Problem) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]:
    dims = (*(0 for _ in range(15)), None)
    step = jax.vmap(_jax_step, in_axes=(dims, None, None), out_axes=(dims, 0))
    start = tuple(jnp.asarray(leaf.numpy()) for leaf in problem.start())
    return step, start, tuple(map(jnp.asarray, diabetes(problem.rows)))


def jax_step(problem: Problem) -> Loop:
    step, start, data = _jax_parts(problem)
    jitted = jax.jit(step)
    return Loop(JAX_STEP, lambda: start, lambda state: jitted(state, *data))


def jax_run(problem: Problem) -> Blocks:
    step, start, data = _jax_parts(problem)

    @jax.jit
    def block(state: State, x: jax.Array, y: jax.Array) -> tuple[State, jax.Array]:
        return jax.lax.scan(lambda s, _: step(s, x, y), state, length=problem.block)

    def run(state: State, count: int) -> tuple[State, Array]:
        losses = []
        for _ in range(count // problem.block):
            state, loss = block(state, *data)
            losses.append(loss)
        return state, np.concatenate(losses)

    return Blocks(JAX_RUN, lambda: start, run)


# ------------------------------------------------------------------------------------- the floor


def _floor_loss(params: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over members, whose gradient is that of each, and the loss of each."""
    weight, bias, last, shift, raw = params
    hidden = torch.baddbmm(bias[:, None], x.expand(len(weight), *x.shape), weight).tanh()
    mean = torch.baddbmm(shift[:, :, None], hidden, last[:, :, None]).squeeze(-1)
    standard = (y - mean) * torch.exp(-raw)[:, None]
    losses = (0.5 * standard.square() + (raw[:, None] + HALF_LOG_TAU)).sum(1)
    return losses.sum(), losses


def _floor_step(state: tuple[Tensor, ...], x: Tensor, y: Tensor) -> tuple[State, Tensor]:
    *leaves, count = state
    params, first, second = tuple(leaves[:5]), leaves[5:10], leaves[10:]
    gradients, losses = torch.func.grad(_floor_loss, has_aux=True)(params, x, y)
    count = count + 1
    new: list[list[Tensor]] = [[], [], []]
    for value, m, v, gradient in zip(params, first, second, gradients, strict=True):
        m = BETA_1 * m + (1 - BETA_1) * gradient
        v = BETA_2 * v + (1 - BETA_2) * gradient.square()
        root = (v / (1 - BETA_2**count)).sqrt() + EPS
        value = value - RATE * m / (1 - BETA_1**count) / root
        for kind, leaf in zip(new, (value, m, v), strict=True):
            kind.append(leaf)
    return (*new[0], *new[1], *new[2], count), losses


COMPILE = {"fullgraph": True, "dynamic": False}


def floor_step(problem: Problem) -> Loop:
    step, data, start = torch.compile(_floor_step, **COMPILE), problem.tensors, problem.start()
    return Loop(FLOOR_STEP, lambda: start, lambda state: step(state, *data))


def floor_run(problem: Problem) -> Blocks:
    """A ``while_loop`` with the C++ wrapper, in one call for each block."""
    data, start, turns = problem.tensors, problem.start(), problem.block
    graph = make_fx(_floor_step)(start, *data)

    def block(state: State, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
        def goes_on(i: Tensor, losses: Tensor, *state: Tensor) -> Tensor:
            return i < turns

        def turn(i: Tensor, losses: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            state, new = graph(state, x, y)
            return i + 1, losses.index_copy(0, i.view(1), new[None]), *state

        empty = torch.zeros(turns, problem.members)
        start = torch.zeros((), dtype=torch.int64), empty, *state
        _, losses, *after = while_loop(goes_on, turn, start)
        return tuple(after), losses

    compiled: Any = torch.compile(block, **COMPILE, options={"cpp_wrapper": True})

    def run(state: State, count: int) -> tuple[State, Tensor]:
        losses = []
        for _ in range(count // turns):
            state, loss = compiled(state, *data)
            losses.append(loss)
        return state, torch.cat(losses)

    return Blocks(FLOOR_RUN, lambda: start, run)


# ------------------------------------------------------------------------------------------- Pyro


def pyro_loop(problem: Problem) -> Loop:
    """SVI of the first members, one after the other; ``scaled`` has the time of all."""
    data, count = problem.tensors, min(problem.members, PYRO_MEMBERS)
    leaves = problem.start()

    def member(i: int) -> pyro.infer.SVI:
        net = network()
        values = [leaves[0][i].T, leaves[1][i], leaves[2][i][None], leaves[3][i]]
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), values, strict=True):
                parameter.copy_(value)

        def model(x: Tensor, y: Tensor) -> None:
            mean = pyro.module(f"net{i}", net)(x).squeeze(-1)
            one = torch.tensor(1.0)
            noise = pyro.param(f"noise{i}", one, constraint=constraints.positive)
            with pyro.plate("patients", len(x)):
                pyro.sample("score", dist.Normal(mean, noise), obs=y)

        optim = pyro.optim.Adam({"lr": RATE})
        return pyro.infer.SVI(model, nothing, optim, pyro.infer.Trace_ELBO())

    def init() -> list[pyro.infer.SVI]:
        pyro.clear_param_store()
        return [member(i) for i in range(count)]

    def step(members: list[pyro.infer.SVI]) -> tuple[list[pyro.infer.SVI], list[float]]:
        return members, [svi.step(*data) for svi in members]

    return Loop(PYRO, init, step)


def scaled(problem: Problem, times: dict[str, float]) -> dict[str, float]:
    """Pyro's time for all members, from that for those which were run."""
    factor = problem.members / min(problem.members, PYRO_MEMBERS)
    return times | {PYRO: factor * times[PYRO]} if PYRO in times else times


WAYS: dict[str, Callable[[Problem], Loop | Blocks]] = {
    STEP: ours_step,
    JAX_STEP: jax_step,
    FLOOR_STEP: floor_step,
    PYRO: pyro_loop,
    RUN: ours_run,
    JAX_RUN: jax_run,
    FLOOR_RUN: floor_run,
}
