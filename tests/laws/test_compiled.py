"""Compiled is eager, errors included (law 16), over generated functions and models.

A graph takes seconds to compile, so that one graph holds many of them. On traced graphs, which run
as they are, there are more.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import optree
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from purepyro import PurepyroError, jit, random
from purepyro._compile.inductor import _backend
from purepyro._errors import OutOfRangeError
from purepyro.infer import SVI, AutoNormal, SVIState

pytestmark = [pytest.mark.compiled, pytest.mark.slow]

INF, NAN = float("inf"), float("nan")
WIDTH = 6

# Vectors: plain ones, and those at the edges of what functions are made for.
PLAIN = torch.tensor([0.3, -0.7, 1.4, -2.2, 0.9, 0.1])
SMALL = torch.tensor([1e-5, -1e-7, 1e-30, -1e-40, 0.0, -0.0])
LARGE = torch.tensor([21.0, -88.0, 1e10, -1e30, 3e38, 100.0])
ODD = torch.tensor([NAN, INF, -INF, 0.0, 1.0, -1.0])
VECTORS = (PLAIN, SMALL, LARGE, ODD)
INDEX = torch.tensor([0, 5, 2, 2, 4, 1])


class Inputs(NamedTuple):
    """What generated functions are given."""

    x: Tensor
    y: Tensor
    z: Tensor
    i: Tensor


Step: TypeAlias = Callable[[Tensor, Inputs], Tensor]

# What may come first: at the inputs, which both have to the bit.
FIRST: Mapping[str, Step] = {
    "exp": lambda x, _: x.exp(),
    "expm1": lambda x, _: x.expm1(),
    "log1p": lambda x, _: x.log1p(),
    "erf": lambda x, _: x.erf(),
    "erfc": lambda x, _: x.erfc(),
    "tanh": lambda x, _: x.tanh(),
    "atanh": lambda x, _: x.atanh(),
    "acosh": lambda x, _: x.acosh(),
    "asinh": lambda x, _: x.asinh(),
    "sigmoid": lambda x, _: x.sigmoid(),
    "logsigmoid": lambda x, _: functional.logsigmoid(x),
    "softplus": lambda x, _: functional.softplus(x),
    "elu": lambda x, _: functional.elu(x),
    "selu": lambda x, _: functional.selu(x),
    "celu": lambda x, _: functional.celu(x),
    "softshrink": lambda x, _: functional.softshrink(x),
    "lgamma": lambda x, _: x.lgamma(),
    "sqrt": lambda x, _: x.sqrt(),
    "rsqrt": lambda x, _: x.rsqrt(),
    "log": lambda x, _: x.log(),
    "floor": lambda x, _: x.floor(),
    "round": lambda x, _: x.round(),
    "floor quotient": lambda x, _: x // 0.3,
    "floor of quotients": lambda x, each: torch.div(x, each.y, rounding_mode="floor"),
    "truncated": lambda x, _: torch.div(x, 0.3, rounding_mode="trunc"),
    "remainder": lambda x, _: x % 0.7,
    "remainders": lambda x, each: torch.remainder(x, each.y),
    "fmod": lambda x, _: torch.fmod(x, 0.7),
    "zero times": lambda x, _: 0 * x,
    "no times": lambda x, _: x * False,
    "minus itself": lambda x, _: x - x,
    "by itself": lambda x, _: x / x,
    "power": lambda x, _: x**2.5,
    "xlogy": lambda x, each: torch.xlogy(each.y, x),
    "hypot": lambda x, each: torch.hypot(x, each.y),
    "atan2": lambda x, each: torch.atan2(x, each.y),
    "wide": lambda x, _: x.double().expm1().float(),
    "gradient": lambda x, _: torch.func.grad(lambda x: functional.elu(x).sum())(x),
}

# What may follow: well conditioned, so that a last digit stays a last digit.
AFTER: Mapping[str, Step] = {
    "negated": lambda x, _: -x,
    "flipped": lambda x, _: x.flip(0),
    "relu": lambda x, _: x.relu(),
    "absolute": lambda x, _: x.abs(),
    "clamped": lambda x, _: x.clamp(-3.0, 3.0),
    "largest": lambda x, each: torch.maximum(x, each.y),
    "largest of all": lambda x, _: x.amax().expand(WIDTH),
    "chosen": lambda x, each: torch.where(each.y > 0, x, each.y),
    "zero": lambda x, _: 0 * x,
    "indexed": lambda x, each: x[each.i],
    "set": lambda x, each: x.index_put((each.i[:1],), torch.ones(())),
    "filled": lambda x, each: x.index_fill(0, each.i[:2], 2.0),
    "gathered": lambda x, each: x.gather(0, each.i),
    "selected": lambda x, each: x.index_select(0, each.i),
    "scattered": lambda x, each: x.scatter(0, each.i[:1], 5.0),
    "rows": lambda x, each: functional.embedding(each.i, x[:, None]).squeeze(-1),
    "strided": lambda x, _: torch.stack([x[::2], x[1::2]]).T.reshape(-1),
    "expanded": lambda x, _: x[:1].expand(WIDTH),
    "conjugated": lambda x, each: torch.complex(x, each.y).conj().imag.neg(),
    "imaginary": lambda x, each: each.z.conj().imag + x,
    "negative view": lambda x, _: torch.complex(x, x).conj().imag * 1.0,
    "mapped": lambda x, each: torch.vmap(lambda i: x[i])(each.i),
}

# What no graph has: refused, whatever eager torch makes of it.
REFUSED: Mapping[str, Step] = {
    "branch": lambda x, _: x if x.sum() > 0 else -x,
    "mask": lambda x, _: x[x > 0],
    "number": lambda x, _: x * x.sum().item(),
    "in place": lambda x, each: x + each.y.add_(1.0),
    "global draw": lambda x, _: x + torch.rand(()),
}

NAMES: dict[str, int] = {}

# What fails in eager torch too.
FAILS: Mapping[str, Step] = {
    "shape": lambda x, _: x + torch.ones(5),
    "dtype": lambda x, each: x[each.y],
    "dimension": lambda x, _: x.sum(3),
    "own": lambda x, _: x[NAMES["missing"]],
}
CALLS_INDEX = frozenset(
    {"indexed", "set", "filled", "gathered", "selected", "scattered", "rows", "mapped"}
)


class Pair(NamedTuple):
    """A named tuple."""

    first: Tensor
    rest: object


@dataclass
class Box:
    """A type that is no pytree."""

    x: Tensor


CONTAINERS: Mapping[str, Callable[[Tensor], object]] = {
    "tensor": lambda x: x,
    "pair": lambda x: Pair(x, None),
    "dict": lambda x: {"b": [x, x], "a": "text"},
    "default": lambda x: defaultdict(list, {"x": [x]}),
    "ordered": lambda x: OrderedDict(b=x, a=(1, x.sum())),
    "deque": lambda x: deque([x], maxlen=2),
    "box": Box,
    "set": lambda x: {x},
}
KNOWN = frozenset(CONTAINERS) - {"box", "set"}


class Program(NamedTuple):
    """A generated function, in words."""

    steps: tuple[str, ...]
    container: str

    def run(self, each: Inputs) -> object:
        """What it returns."""
        here = each.x
        for name in self.steps:
            step = next(pool[name] for pool in POOLS if name in pool)
            here = step(here, each)
        return CONTAINERS[self.container](here)


POOLS = (FIRST, AFTER, REFUSED, FAILS)


def programs(*pools: Mapping[str, Step], containers: frozenset[str]) -> st.SearchStrategy[Program]:
    """Functions with one first step, and up to two after it."""
    first = st.sampled_from(sorted(FIRST))
    after = st.lists(st.sampled_from(sorted({name for pool in pools for name in pool})), max_size=2)
    steps = st.builds(lambda one, others: (one, *others), first, after)
    return st.builds(Program, steps, st.sampled_from(sorted(containers)))


def inputs(index: Tensor = INDEX) -> list[Inputs]:
    """Vectors of all kinds, with one another."""
    spectrum = torch.fft.fft(PLAIN)
    return [
        Inputs(x.clone(), y.clone(), spectrum, index.clone())
        for x, y in zip(VECTORS, (SMALL, PLAIN, ODD, LARGE), strict=True)
    ]


def agree(found: object, wanted: object, what: object) -> None:
    """Two results have the same form and elements, to rounding; nan is in the same places."""
    trees: Any = optree
    ours, form = trees.tree_flatten(found)
    theirs, other = trees.tree_flatten(wanted)
    assert form == other, what
    for one, two in zip(ours, theirs, strict=True):
        if not isinstance(two, Tensor):
            assert one == two, what
            continue
        assert type(one) is Tensor, what
        message = f"{what}: {one.tolist()} for {two.tolist()}"
        assert one.dtype == two.dtype, message
        near = torch.isclose(one, two, rtol=1e-5, atol=1e-37, equal_nan=True)
        assert near.all(), message


def outcome(fn: Callable[..., object], *args: object) -> object:
    """What a function returns, or the error that it raises."""
    try:
        return fn(*args)
    except Exception as error:
        return error


@pytest.mark.usefixtures("uncompiled")
@settings(max_examples=20)
@given(
    programs(AFTER, AFTER, REFUSED, FAILS, containers=frozenset(CONTAINERS)),
    st.lists(st.integers(-8, 7), min_size=WIDTH, max_size=WIDTH) | st.just(INDEX.tolist()),
)
def test_functions_on_traced_graphs(program: Program, index: list[int]) -> None:
    """The same result or an error of ours; where eager torch fails, an error of its kind."""
    jitted = jit(program.run)
    for each in inputs(torch.tensor(index)):
        before = each.y.clone()
        found = outcome(jitted, each)
        assert torch.equal(each.y.nan_to_num(7.5), before.nan_to_num(7.5))
        assert torch.equal(each.y.nan_to_num(7.5), before.nan_to_num(7.5))
        wanted = outcome(program.run, each)
        if isinstance(found, PurepyroError):
            refused = {*REFUSED}.intersection(program.steps) or program.container not in KNOWN
            assert refused or isinstance(wanted, (IndexError, RuntimeError)), program
        elif isinstance(wanted, Exception):
            # Torch's own, where it checks shapes without elements, is sometimes a RuntimeError.
            assert isinstance(found, (type(wanted), RuntimeError)), program
        else:
            assert not isinstance(found, Exception), (program, found)
            assert not {*REFUSED}.intersection(program.steps), program
            agree(found, wanted, program)


def test_functions_compiled() -> None:
    """Every step there is: first ones by themselves, two others after one another."""
    chosen = [Program((first,), "tensor") for first in FIRST]
    chosen += [
        Program(("tanh", one, other), "pair")
        for one, other in zip(list(AFTER)[::2], list(AFTER)[1::2], strict=True)
    ]

    @jit
    def all_of(each: Inputs) -> dict[int, object]:
        return {n: program.run(each) for n, program in enumerate(chosen)}

    for each in inputs():
        found = all_of(each)
        for n, program in enumerate(chosen):
            agree(found[n], program.run(each), (program, each))
    for bad in (WIDTH, -WIDTH - 1, 10**6):
        index = INDEX.clone()
        index[0] = bad
        with pytest.raises(OutOfRangeError, match=f"Index {bad} is out of range"):
            all_of(inputs(index)[0])
    assert all_of.cache_info().currsize == 1


class Sketch(NamedTuple):
    """A generated model, in words."""

    prior: str
    likelihood: str
    dtype: torch.dtype
    local: bool


PRIORS: Mapping[str, Callable[[Tensor], Any]] = {
    "normal": lambda one: dist.Normal(0.0 * one, one),
    "log normal": lambda one: dist.LogNormal(0.0 * one, 0.5 * one),
    "gamma": lambda one: dist.Gamma(2.0 * one, one),
    "beta": lambda one: dist.Beta(2.0 * one, 3.0 * one),
    "half cauchy": lambda one: dist.HalfCauchy(one),
    "student": lambda one: dist.StudentT(4.0 * one, 0.0 * one, one),
    "uniform": lambda one: dist.Uniform(-one, 2.0 * one),
}
LIKELIHOODS: Mapping[str, Callable[[Tensor], Any]] = {
    "normal": lambda at: dist.Normal(at, 0.5),
    "student": lambda at: dist.StudentT(3.0, at, 1.0),
    "poisson": lambda at: dist.Poisson(at.abs() + 0.1),
    "bernoulli": lambda at: dist.Bernoulli(logits=at),
    "categorical": lambda at: dist.Categorical(logits=torch.stack([at, -at], -1)),
}


def model_of(sketch: Sketch) -> Callable[[Tensor, Tensor], None]:
    """The model: levels of a factor, a row for each observation."""

    def model(level: Tensor, y: Tensor) -> None:
        one = torch.ones((), dtype=sketch.dtype)
        shared = pyro.sample("shared", dist.Normal(0.0 * one, one))
        with pyro.plate("levels", 3):
            effect = pyro.sample("effect", PRIORS[sketch.prior](one))
        with pyro.plate("rows", len(level)):
            at = shared + effect[level]
            if sketch.local:
                at = at + 0.1 * pyro.sample("local", dist.Normal(0.0 * one, one))
            pyro.sample("y", LIKELIHOODS[sketch.likelihood](at), obs=y)

    return model


SKETCHES = st.builds(
    Sketch,
    st.sampled_from(sorted(PRIORS)),
    st.sampled_from(sorted(LIKELIHOODS)),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
LEVEL = torch.tensor([0, 2, 1, 0, 2])
Y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])


def steps_of(sketches: list[Sketch]) -> tuple[Callable[..., Any], list[SVIState], list[Tensor]]:
    """One step of a fit of each, their states, and their data."""
    svis = [SVI(model, AutoNormal(model), torchopt.adam(0.05)) for model in map(model_of, sketches)]
    data = [Y.to(sketch.dtype) for sketch in sketches]
    starts = [
        svi.init(random.key(n), LEVEL, y) for n, (svi, y) in enumerate(zip(svis, data, strict=True))
    ]

    def steps(states: list[SVIState], level: Tensor, ys: list[Tensor]) -> list[object]:
        each = zip(svis, states, ys, strict=True)
        return [svi.step(state, level, y) for svi, state, y in each]

    return steps, starts, data


def check_steps(sketches: list[Sketch]) -> None:
    """Draws, values and gradients, by way of losses and new parameters; and a level too many."""
    steps, states, data = steps_of(sketches)
    jitted = jit(steps)
    for _ in range(2):
        found: Any = jitted(states, LEVEL, data)
        wanted = steps(states, LEVEL, data)
        for sketch, ours, theirs in zip(sketches, found, wanted, strict=True):
            (state, loss), (other, other_loss) = ours, theirs
            assert torch.isclose(loss, other_loss, rtol=1e-5), sketch
            torch.testing.assert_close(state.params, other.params, rtol=1e-4, atol=1e-5)
        states = [state for state, _ in found]
    for bad in LEVEL + 1, LEVEL - 4:
        with pytest.raises(IndexError):
            steps(states, bad, data)
        with pytest.raises(OutOfRangeError, match=r"`at = shared \+ effect\[level\]`"):
            jitted(states, bad, data)
    assert jitted.cache_info().currsize == 1


@pytest.mark.usefixtures("uncompiled")
@settings(max_examples=4)
@given(SKETCHES)
def test_models_on_traced_graphs(sketch: Sketch) -> None:
    check_steps([sketch])


def test_models_compiled() -> None:
    kinds = zip([*PRIORS], [*LIKELIHOODS, *LIKELIHOODS], strict=False)
    check_steps(
        [
            Sketch(prior, likelihood, (torch.float32, torch.float64)[n % 2], n % 3 == 0)
            for n, (prior, likelihood) in enumerate(kinds)
        ][1:3]
    )


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs run as they are, without the seconds of a compiler."""
    monkeypatch.setattr(_backend, "_missing", lambda inputs: "compiler that is quick")
    monkeypatch.setattr(_backend, "_warn", lambda reason: None)
