"""Does it work on a GPU, and how fast: checks of the laws on CUDA, then a table of times.

Run: make gpu, or python benchmarks/gpu.py. It needs a torch with CUDA and the package's own
requirements, nothing else; JAX is compared if it is there and sees the same device. Without a GPU
it says so and runs small on the CPU, which tests that this script itself works.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeAlias

import attrs
import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor, nn

from purepyro import (
    Ensemble,
    Lifted,
    Module,
    PyroSample,
    apply,
    disable_jit,
    jit,
    lift,
    random,
    to,
    trace,
)
from purepyro.infer import SVI, AutoDelta, AutoNormal

Tree: TypeAlias = Any
"""Arrays of JAX, in whatever containers."""

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
MEMBERS = (100, 1_000, 10_000) if HAS_GPU else (4,)
ROWS, UNITS = (1_000, 50) if HAS_GPU else (50, 5)
STEPS = 500 if HAS_GPU else 20


class Line(Module):
    """A Bayesian linear regression."""

    zero: Tensor
    slope = PyroSample(lambda self: dist.Normal(self.zero, 1.0).expand([3]).to_event(1))
    sigma = PyroSample(lambda self: dist.LogNormal(self.zero, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = x @ self.slope, self.sigma
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)
        return mean


class Net(Module):
    """A network with learnable weights, for an ensemble."""

    net: Lifted[[Tensor], Tensor]

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = self.net(x).squeeze(-1)
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        return mean


def network(width: int) -> Net:
    """Two layers; every member starts elsewhere."""
    layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    return Net(lift(layers.to(DEVICE), reinitialize=True))


def data(device: torch.device) -> tuple[Tensor, Tensor]:
    """Columns and targets; drawn on the CPU, so that they are the same everywhere."""
    x = random.normal(random.key(1), ROWS, 3)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * random.normal(random.key(2), ROWS)
    return x.to(device), y.to(device)


def line_svi(device: torch.device, **settings: Any) -> SVI[[Tensor, Tensor | None]]:
    """The fit of the regression."""
    model = to(Line(torch.tensor(0.0)), device=device)
    return SVI(model, AutoNormal(model), torchopt.adam(0.01), progress_bar=False, **settings)


def at(seed: int, device: torch.device = DEVICE) -> random.Key:
    """A key on a device."""
    return random.key(seed, device=device)


# ------------------------------------------------------------------------------------------ checks


def same(a: Tensor, b: Tensor) -> None:
    """Bit for bit, wherever they are."""
    assert torch.equal(a.cpu(), b.cpu()), f"differ by {(a.cpu() - b.cpu()).abs().max()}"


def near(a: Tensor, b: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    """Up to rounding, wherever they are."""
    torch.testing.assert_close(a.cpu(), b.cpu(), rtol=rtol, atol=atol)


def draws_are_those_of_the_cpu() -> None:
    """Keys, bits, uniforms, integers and permutations bit for bit, normals up to rounding."""
    cpu = torch.device("cpu")
    for draw in (
        lambda key: random.split(key, 5),
        lambda key: random.fold_in(key, 7),
        lambda key: random.bits(key, 1_000),
        lambda key: random.uniform(key, 1_000),
        lambda key: random.uniform(key, 1_000, dtype=torch.float64),
        lambda key: random.randint(key, 1_000, low=0, high=10),
        lambda key: random.permutation(key, 100),
    ):
        same(draw(at(3)), draw(at(3, cpu)))
    near(random.normal(at(3), 1_000), random.normal(at(3, cpu), 1_000), rtol=1e-5, atol=1e-5)


def runs_are_pure() -> None:
    """Law 1: the same result twice, and nothing left behind."""
    model, (x, y) = to(Line(torch.tensor(0.0)), device=DEVICE), data(DEVICE)
    before = torch.cuda.get_rng_state() if HAS_GPU else torch.get_rng_state()
    first, second = (trace(model, {}, at(0), x, y)[1] for _ in range(2))
    same(first.log_density, second.log_density)
    same(torch.cuda.get_rng_state() if HAS_GPU else torch.get_rng_state(), before)
    assert not dict(pyro.get_param_store())


def draws_go_by_name() -> None:
    """Law 2: another site changes no draw."""

    def one() -> Tensor:
        return pyro.sample("a", dist.Normal(torch.zeros(3, device=DEVICE), 1.0).to_event(1))

    def two() -> Tensor:
        pyro.sample("b", dist.Normal(torch.zeros(2, device=DEVICE), 1.0).to_event(1))
        return one()

    same(apply(one, {}, at(0)), apply(two, {}, at(0)))


def vmap_is_a_loop() -> None:
    """Law 3: draws under vmap over keys, and members of an ensemble."""

    def model() -> Tensor:
        gamma = pyro.sample("g", dist.Gamma(torch.ones(4, device=DEVICE), 1.0).to_event(1))
        return gamma + pyro.sample("n", dist.Normal(gamma, 1.0).to_event(1))

    keys = random.split(at(0), 6)
    loop = torch.stack([apply(model, {}, random.Key(key)) for key in keys])
    same(torch.vmap(lambda key: apply(model, {}, key))(keys), loop)
    x, y = data(DEVICE)
    svi, keys = line_svi(DEVICE, compiled=False), random.split(at(1), 3)
    together = Ensemble(svi, progress_bar=False).run(keys, 5, x, y)
    alone = svi.run(random.Key(keys[1]), 5, x, y)
    near(together.losses[:, 1], alone.losses)


def compiled_is_eager() -> None:
    """Laws 4 and 16: a jitted step and a compiled run, and their errors."""
    x, y = data(DEVICE)
    svi = line_svi(DEVICE)
    state = svi.init(at(0), x, y)
    with disable_jit():
        wanted, loss = svi.step(state, x, y)
        run = svi.run(at(0), 20, x, y)
    step = jit(svi.step)
    for _ in range(2):
        found, found_loss = step(state, x, y)
        near(found_loss, loss)
        for name, value in found.params.items():
            near(value, wanted.params[name])
    compiled = line_svi(DEVICE, compiled=True).run(at(0), 20, x, y)
    near(compiled.losses, run.losses, rtol=1e-3, atol=1e-3)
    told = ""
    try:
        line_svi(DEVICE, compiled=True).run(at(0), 20, x, y * torch.nan)
    except ValueError as error:
        told = str(error)
    assert "'y'" in told, "data that are nan were fitted"


def gradients_are_torchs() -> None:
    """Law 5: functional and tape gradients."""
    x, y = data(DEVICE)
    svi = line_svi(DEVICE)
    params = svi.init(at(0), x, y).params

    def loss(params: dict[str, Tensor]) -> Tensor:
        return svi.loss.loss(svi.model, svi.guide, params, at(0), x, y)

    functional = torch.func.grad(loss)(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    taped = torch.autograd.grad(loss(leaves), list(leaves.values()))
    for name, gradient in zip(leaves, taped, strict=True):
        near(functional[name], gradient)
        assert bool(gradient.abs().sum() > 0), f"{name} has no gradient"


CHECKS: tuple[Callable[[], None], ...] = (
    draws_are_those_of_the_cpu,
    runs_are_pure,
    draws_go_by_name,
    vmap_is_a_loop,
    gradients_are_torchs,
    compiled_is_eager,
)


def failures() -> list[str]:
    """Run all checks; which of them failed."""
    failed = []
    for check in CHECKS:
        start = time.perf_counter()
        try:
            check()
        except Exception:
            failed.append(check.__name__)
            traceback.print_exc()
        mark = "FAILED" if failed[-1:] == [check.__name__] else "ok"
        print(f"{mark:7} {check.__name__} ({time.perf_counter() - start:.1f} s)", flush=True)
    return failed


# ------------------------------------------------------------------------------------------- times


@attrs.frozen
class Timed:
    """One row of the table."""

    what: str
    step: float  # microseconds
    first: float  # seconds, of the first call
    memory: float | None  # MiB at most, on the device

    def __str__(self) -> str:
        memory = "" if self.memory is None else f"{self.memory:12,.0f}"
        return f"{self.what:42}{self.step:14,.1f}{self.first:12.1f}{memory}"


def wait() -> None:
    """Until the device is done."""
    if HAS_GPU:
        torch.cuda.synchronize()


def timed(what: str, run: Callable[[], object], steps: int, repeats: int = 3) -> Timed:
    """A run of so many steps: the first by itself, then the median of some more."""
    if HAS_GPU:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() / 2**20 if HAS_GPU else None
    return Timed(what, sorted(times[1:])[repeats // 2] / steps * 1e6, times[0], memory)


def by_hand(members: int) -> Callable[[], object]:
    """The ensemble of networks as a careful torch user writes it: batched weights and Adam."""
    x, y = data(DEVICE)
    shapes = ((members, UNITS, 3), (members, UNITS), (members, 1, UNITS), (members, 1))

    def loss(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        hidden = torch.tanh(torch.einsum("muk,rk->mru", w1, x) + b1[:, None])
        mean = (torch.einsum("mru,mku->mrk", hidden, w2) + b2[:, None]).squeeze(-1)
        return 0.5 * (y - mean).square().sum()

    def run() -> object:
        weights = [(torch.randn(shape, device=DEVICE) * 0.1).requires_grad_() for shape in shapes]
        optimiser = torch.optim.Adam(weights, lr=0.01, foreach=True)
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss(*weights).backward()
            optimiser.step()
        return weights

    return run


def jax_members(members: int) -> Callable[[], object] | None:
    """The same in JAX, if it is there and has this kind of device."""
    try:
        jax: Any = import_module("jax")
        jnp: Any = import_module("jax.numpy")
        platform = jax.devices()[0].platform
    except Exception:
        return None
    if (platform == "gpu") != HAS_GPU:
        return None
    x, y = (jnp.asarray(each.cpu().numpy()) for each in data(DEVICE))

    def loss(weights: Tree) -> Tree:
        w1, b1, w2, b2 = weights
        hidden = jnp.tanh(x @ w1.T + b1)
        return 0.5 * jnp.square(y - (hidden @ w2.T + b2).squeeze(-1)).sum()

    def step(carry: Tree, _: Tree) -> Tree:
        weights, first, second, count = carry
        gradient = jax.grad(loss)(weights)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        weights = jax.tree.map(
            lambda w, m, v: (
                w - 0.01 * m / (1 - 0.9**count) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
            ),
            weights,
            first,
            second,
        )
        return (weights, first, second, count), None

    def train(weights: Tree, zeros: Tree) -> Tree:
        return jax.lax.scan(step, (weights, zeros, zeros, 0), None, STEPS)[0][0]

    @jax.jit
    def run(weights: Tree) -> Tree:
        return jax.vmap(train)(weights, jax.tree.map(jnp.zeros_like, weights))

    start = tuple(
        0.1 * jax.random.normal(jax.random.PRNGKey(i), (members, *shape))
        for i, shape in enumerate(((UNITS, 3), (UNITS,), (1, UNITS), (1,)))
    )
    return lambda: jax.block_until_ready(run(start))


def rows() -> Iterator[Timed]:
    """All rows of the table, as they are measured."""
    x, y = data(DEVICE)
    eager, compiled = line_svi(DEVICE, compiled=False), line_svi(DEVICE, compiled=True)
    few = max(STEPS // 10, 1)
    yield timed("regression, eager steps", lambda: eager.run(at(0), few, x, y), few)
    yield timed("regression, compiled run", lambda: compiled.run(at(0), STEPS, x, y), STEPS)
    net = network(UNITS)
    svi = SVI(net, AutoDelta(net), torchopt.adam(0.01), progress_bar=False, compiled=True)
    yield timed("network, compiled run", lambda: svi.run(at(0), STEPS, x, y), STEPS)
    for members in MEMBERS:
        ensemble, keys = Ensemble(svi, progress_bar=False), random.split(at(0), members)
        yield timed(
            f"{members:,} members, compiled run",
            lambda ensemble=ensemble, keys=keys: ensemble.run(keys, STEPS, x, y),
            STEPS,
        )
        yield timed(f"{members:,} members, torch by hand", by_hand(members), STEPS)
        other = jax_members(members)
        if other is not None:
            yield timed(f"{members:,} members, JAX", other, STEPS)


def main() -> int:
    """Check, then measure; 1 if a check failed."""
    where = torch.cuda.get_device_name() if HAS_GPU else "no GPU: small sizes on the CPU"
    print(f"torch {torch.__version__}, {where}\n", flush=True)
    failed = failures()
    memory = "   MiB at most" if HAS_GPU else ""
    print(f"\n{'':42}{'us a step':>14}{'first, s':>12}{memory}")
    for row in rows():
        print(row, flush=True)
    if failed:
        print(f"\nFailed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
