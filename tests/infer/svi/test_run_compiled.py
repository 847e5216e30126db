"""Runs in compiled blocks: the graphs as they are traced, then what the compiler makes of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import optree
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor, nn
from torchopt.schedule import linear_schedule

from models import regression, regression_data
from purepyro import Ensemble, Module, PyroSample, disable_jit, random
from purepyro._compile.inductor import _backend
from purepyro._compile.scan import _blocks
from purepyro._errors import SupportError, TraceError
from purepyro.infer import (
    SVI,
    AutoDelta,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    Optimizer,
    RenyiELBO,
    SVIRecord,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    clip_grad_norm,
    load,
    save,
)
from purepyro.infer.svi._nonfinite import OnNonfinite

pytestmark = pytest.mark.compiled

X, Y = regression_data(12)
LINE = regression()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are traced and put together as ever, and run by torch."""
    monkeypatch.setattr(_backend, "_missing", lambda inputs: "compiler that is quick")
    monkeypatch.setattr(_backend, "_warn", lambda reason: None)


def leaves(tree: object) -> list[Tensor]:
    trees: Any = optree  # whose types know no NamedTuple
    return [*trees.tree_leaves(tree)]


def same(one: object, other: object) -> bool:
    return all(map(torch.equal, leaves(one), leaves(other)))


def gamma(y: Tensor) -> None:
    loc, scale = pyro.sample("loc", dist.Normal(0.0, 1.0)), pyro.sample("s", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)


def subsampled(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample_size=4) as index:
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y[index])


def wide(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(y.new_zeros(()), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, y.new_ones(())), obs=y)


def simplex(y: Tensor) -> None:
    a, b = pyro.sample("a", dist.Gamma(2.0, 1.0)), pyro.sample("b", dist.Beta(2.0, 2.0))
    parts = pyro.sample("d", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a * b + parts[0], 1.0), obs=y)


def simplex_guide(y: Tensor) -> None:
    c = pyro.param("c", torch.tensor(2.0), constraint=constraints.positive)
    pyro.sample("a", dist.Gamma(c, 1.0))
    pyro.sample("b", dist.Beta(c, 2.0))
    pyro.sample("d", dist.Dirichlet(c * torch.ones(3)))


def choice(y: Tensor) -> None:
    z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(z.float(), 1.0), obs=y)


def choice_guide(y: Tensor) -> None:
    pyro.sample("z", dist.Categorical(logits=pyro.param("logits", torch.zeros(2))))


def mixture(y: Tensor) -> None:
    weights = pyro.sample("w", dist.Dirichlet(torch.ones(2)))
    locs = pyro.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(locs[z], 1.0), obs=y)


def process(y: Tensor) -> None:
    length, t = pyro.sample("length", dist.LogNormal(0.0, 1.0)), torch.arange(6.0) / 6
    kernel = torch.exp(-((t[:, None] - t) ** 2) / length**2 / 2) + 0.1 * torch.eye(6)
    tril = torch.linalg.cholesky(kernel)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(6), scale_tril=tril), obs=y[:6])


class Network(Module):
    net: nn.Sequential

    def forward(self, x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(self.net(x).squeeze(-1), 1.0), obs=y)


def ignore(record: SVIRecord) -> None:
    """A callback that lets a run go on."""


def nothing(x: Tensor, y: Tensor) -> None:
    """A guide of a model without latent sites."""


@cache
def network() -> Network:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(random.normal(random.key(i), *parameter.shape))
    return Network(net)


ADAM = torchopt.adam(0.05)


class Case(NamedTuple):
    svi: Callable[[], SVI[...]]
    args: tuple[Tensor, ...] = (X, Y)


def lines(optim: Optimizer | Mapping[str, Optimizer] = ADAM, **settings: Any) -> Case:
    return Case(lambda: SVI(LINE, AutoNormal(LINE), optim, **settings))


CASES: dict[str, Case] = {
    "adam": lines(),
    "particles": lines(loss=Trace_ELBO(num_particles=3)),
    "frozen": lines(frozen="scales.*"),
    "skip": lines(on_nonfinite="skip"),
    "ignore": lines(on_nonfinite="ignore"),
    "patterns": lines({"scales.*": torchopt.sgd(1e-3, momentum=0.9), "*": ADAM}),
    "clipped": lines(torchopt.chain(clip_grad_norm(1.0), torchopt.adam(0.05))),
    "sgd": lines(torchopt.sgd(1e-3)),
    "rmsprop": lines(torchopt.rmsprop(0.01)),
    "adamw": lines(torchopt.adamw(0.01)),
    "schedule": lines(torchopt.adam(linear_schedule(0.1, 0.01, 10, 2))),
    "kl weight": lines(loss=Trace_ELBO(kl_weight=torch.tensor(0.5))),
    "mean field": Case(lambda: SVI(gamma, AutoNormal(gamma), ADAM, TraceMeanField_ELBO()), (Y,)),
    "renyi": Case(lambda: SVI(gamma, AutoNormal(gamma), ADAM, RenyiELBO(num_particles=3)), (Y,)),
    "score": Case(lambda: SVI(choice, choice_guide, ADAM), (Y,)),
    "graph": Case(lambda: SVI(choice, choice_guide, ADAM, TraceGraph_ELBO()), (Y,)),
    "enum": Case(
        lambda: SVI(
            mixture,
            AutoNormal(poutine.block(mixture, hide=["z"])),
            ADAM,
            TraceEnum_ELBO(max_plate_nesting=1),
        ),
        (Y,),
    ),
    "subsampled": Case(lambda: SVI(subsampled, AutoNormal(subsampled), ADAM), (Y,)),
    "delta": Case(lambda: SVI(gamma, AutoDelta(gamma), ADAM), (Y,)),
    "multivariate": Case(lambda: SVI(LINE, AutoMultivariateNormal(LINE), ADAM)),
    "low rank": Case(lambda: SVI(LINE, AutoLowRankMultivariateNormal(LINE), ADAM)),
    "gamma, beta, dirichlet": Case(lambda: SVI(simplex, simplex_guide, ADAM), (Y,)),
    "cholesky": Case(lambda: SVI(process, AutoNormal(process), ADAM), (Y,)),
    "network": Case(lambda: SVI(network(), nothing, ADAM)),
    "float64": Case(lambda: SVI(wide, AutoDelta(wide), ADAM), (Y.double(),)),
}


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_blocks_are_steps(case: Case, key: random.Key) -> None:
    """A run equals the eager one to rounding, and one in two parts to the bit."""
    plain = attrs.evolve(case.svi(), progress_bar=False, compiled=False)
    svi = attrs.evolve(plain, compiled=True)
    wanted, found = plain.run(key, 12, *case.args), svi.run(key, 12, *case.args)
    torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-4, atol=1e-4)
    for one, other in zip(leaves(found.state), leaves(wanted.state), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    first = svi.run(key, 5, *case.args)
    second = svi.run_from(first.state, 7, *case.args)
    assert same(second.state, found.state)
    assert torch.equal(torch.cat([first.losses, second.losses]), found.losses)
    assert svi._graphs.loop._built.info().misses == 1


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
def test_a_flow(key: random.Key) -> None:
    test_blocks_are_steps(Case(lambda: SVI(LINE, AutoIAFNormal(LINE), ADAM)), key)


@pytest.fixture
def line() -> SVI[...]:
    """The regression, in compiled runs."""
    return SVI(LINE, AutoNormal(LINE), ADAM, compiled=True, progress_bar=False)


@pytest.mark.usefixtures("uncompiled")
def test_blocks_have_their_ends_where_steps_are(
    line: SVI[...], key: random.Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 4 rows begin at steps 0, 4, 8, ..., wherever a run begins."""
    monkeypatch.setattr(_blocks, "_ROWS", 4)
    whole = line.run(key, 11, X, Y)
    for cut in (1, 3, 4, 6, 10):
        first = line.run(key, cut, X, Y)
        second = line.run_from(first.state, 11 - cut, X, Y)
        assert same(second.state, whole.state)
        assert torch.equal(torch.cat([first.losses, second.losses]), whole.losses)
    wanted = attrs.evolve(line, compiled=False).run(key, 11, X, Y)
    torch.testing.assert_close(whole.losses, wanted.losses)


@pytest.mark.usefixtures("uncompiled")
def test_the_state_that_a_run_starts_from_is_kept(line: SVI[...], key: random.Key) -> None:
    start = line.init(key, X, Y)
    before = [leaf.clone() for leaf in leaves(start)]
    end = line.run_from(start, 3, X, Y).state
    assert same(before, start)
    for leaf in leaves(end.opt_state):
        leaf.zero_()  # nor does what it ends with share memory with it
    assert same(before, start)


@pytest.mark.usefixtures("uncompiled")
def test_none_and_one(line: SVI[...], key: random.Key) -> None:
    start = line.init(key, X, Y)
    none, one = line.run(key, 0, X, Y), line.run(key, 1, X, Y)
    assert same(none.state, start)
    assert none.losses.shape == (0,)
    assert one.losses.shape == (1,)
    assert int(one.state.step) == 1


@pytest.mark.usefixtures("uncompiled")
def test_frozen_parameters(key: random.Key, line: SVI[...]) -> None:
    svi = attrs.evolve(line, frozen=("scales.*",))
    start, end = svi.init(key, X, Y), svi.run(key, 20, X, Y).state
    for name, value in start.params.items():
        assert torch.equal(value, end.params[name]) == name.startswith("scales.")


def counted(y: Tensor, when: Tensor) -> None:
    """A density that is no number once the parameter, one less at each step, is below ``when``."""
    pyro.sample("loc", dist.Normal(0.0, 1.0))
    count = pyro.param("count", torch.tensor(0.0))
    pyro.factor("down", -count)
    pyro.factor("bad", torch.where(count < when, torch.nan, 0.0))


def rooted(y: Tensor, when: Tensor) -> None:
    """The same for the gradient, with a density that is a number."""
    pyro.sample("loc", dist.Normal(0.0, 1.0))
    count = pyro.param("count", torch.tensor(0.0))
    pyro.factor("down", -count)
    zero = count - count.detach()
    pyro.factor("bad", torch.where(count.detach() < when, zero * zero, torch.ones(())).sqrt())


def going_bad(model: Callable[[Tensor, Tensor], None]) -> SVI[[Tensor, Tensor]]:
    guide = AutoNormal(poutine.block(model, expose=["loc"]))
    return SVI(model, guide, torchopt.sgd(1.0), progress_bar=False)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("model", [counted, rooted])
@pytest.mark.parametrize("num_steps", [9, 10, 40])
def test_a_step_that_goes_bad(
    model: Callable[[Tensor, Tensor], None], num_steps: int, key: random.Key
) -> None:
    """It is named as in an eager run: in the middle of a block, and at the end of a run."""
    messages = []
    for compiled in (False, True):
        svi = attrs.evolve(going_bad(model), compiled=compiled)
        with pytest.raises(SupportError, match="'bad'") as caught:
            svi.run(key, num_steps, Y, torch.tensor(-7.5))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("Step 8 ")


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("way", ["skip", "ignore"])
def test_a_step_that_goes_bad_and_is_let_be(way: OnNonfinite, key: random.Key) -> None:
    svi = attrs.evolve(going_bad(counted), on_nonfinite=way, compiled=False)
    wanted = svi.run(key, 20, Y, torch.tensor(-7.5))
    found = attrs.evolve(svi, compiled=True).run(key, 20, Y, torch.tensor(-7.5))
    assert int(found.losses.isnan().sum()) == 12
    torch.testing.assert_close(found.losses, wanted.losses, equal_nan=True)
    assert found.state.params["count"].item() == (-8.0 if way == "skip" else -20.0)


@pytest.mark.usefixtures("uncompiled")
def test_a_callback_sees_each_step(line: SVI[...], key: random.Key) -> None:
    seen: list[SVIRecord] = []

    def callback(record: SVIRecord) -> bool:
        seen.append(record)
        return len(seen) == 4

    svi = attrs.evolve(line, callback=callback)
    found = svi.run(key, 10, X, Y)
    assert [record.step for record in seen] == [1, 2, 3, 4]
    torch.testing.assert_close(found.losses, line.run(key, 4, X, Y).losses)
    step: Any = svi._graphs.step
    assert step.cache_info() == (3, 1, 32, 1)


@pytest.mark.usefixtures("uncompiled")
def test_progress(
    line: SVI[...],
    key: random.Key,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO, logger="purepyro.infer")
    line.run(key, 50, X, Y)
    assert caplog.messages[-1].startswith("SVI: 50 of 50 steps, loss ")
    attrs.evolve(line, progress_bar=True).run(key, 50, X, Y)
    assert "50/50" in capsys.readouterr().err


def batched(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("data", 12, subsample_size=len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


@pytest.mark.usefixtures("uncompiled")
def test_fit_with_a_last_batch_that_is_shorter(key: random.Key) -> None:
    svi = SVI(batched, AutoNormal(batched), ADAM, progress_bar=False, compiled=True)
    batches = [Y[:5], Y[5:10], Y[10:]]
    with pytest.warns(UserWarning, match="rows"):
        found = svi.fit(key, batches, data_size=12, epochs=3)
    with pytest.warns(UserWarning, match="rows"):
        wanted = attrs.evolve(svi, compiled=False).fit(key, batches, data_size=12, epochs=3)
    torch.testing.assert_close(found.losses, wanted.losses)
    step: Any = svi._graphs.step
    assert step.cache_info() == (7, 2, 32, 2)


def test_long_runs_are_compiled(
    line: SVI[...], key: random.Key, caplog: pytest.LogCaptureFixture, uncompiled: None
) -> None:
    svi = attrs.evolve(line, compiled=None)
    svi.run(key, 999, X, Y)
    assert svi._graphs.loop._built.info().misses == 0
    with disable_jit():
        attrs.evolve(svi, compiled=True).run(key, 3, X, Y)
    svi.run(key, 1_000, X, Y)
    assert svi._graphs.loop._built.info().misses == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def branching(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(loc if loc < 100 else -loc, 1.0).expand([len(y)]), obs=y)


@pytest.mark.usefixtures("uncompiled")
def test_what_cannot_be_traced(
    key: random.Key, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error if it is to be compiled; if it may be, a line of the log, and an eager run."""
    monkeypatch.setattr("purepyro.infer.svi._svi._WORTHWHILE", 3)
    svi = SVI(branching, AutoDelta(branching), ADAM, progress_bar=False, compiled=True)
    match = r"test_run_compiled\.py:\d+: `pyro\.sample\(\"y\", dist\.Normal\(loc if loc < 100"
    with pytest.raises(TraceError, match=match):
        svi.run(key, 3, Y)
    with pytest.raises(TraceError, match=match):
        svi.fit(key, [Y] * 3, data_size=None)
    wanted = attrs.evolve(svi, compiled=False).run(key, 3, Y).losses
    caplog.clear()
    auto = attrs.evolve(svi, compiled=None)
    assert torch.equal(auto.run(key, 3, Y).losses, wanted)
    assert torch.equal(attrs.evolve(auto, callback=ignore).run(key, 3, Y).losses, wanted)
    assert torch.equal(auto.fit(key, [Y] * 3, data_size=None).losses, wanted)
    found = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(found) == 3
    assert all("of this run are not compiled. TraceError: The function" in text for text in found)
    held = Y.clone().requires_grad_()

    def with_gradients(y: Tensor) -> None:
        wide(held.double())

    svi = SVI(with_gradients, AutoDelta(with_gradients), ADAM, progress_bar=False)
    assert svi.run(key, 3, Y).losses.isfinite().all()
    assert "GradientError: jit(SVI.step): a tensor outside" in caplog.messages[-1]


@pytest.mark.usefixtures("uncompiled")
def test_an_error_of_the_model_is_its_own(key: random.Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purepyro.infer.svi._svi._WORTHWHILE", 3)
    broken = False

    def model(y: Tensor) -> None:
        wide(y)
        if broken:
            raise ZeroDivisionError("mine")

    svi = SVI(model, AutoDelta(wide), ADAM, progress_bar=False)
    start = svi.init(key, Y)
    broken = True
    with pytest.raises(ZeroDivisionError, match="mine"):
        svi.run_from(start, 3, Y)


# Ensembles


def of_ensemble(svi: SVI[...], **settings: Any) -> Ensemble[...]:
    return Ensemble(svi, progress_bar=False, **settings)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "settings", [{}, {"chunk_size": 2}, {"map": "loop"}], ids=["whole", "chunks", "loop"]
)
def test_ensembles(settings: dict[str, Any], key: random.Key) -> None:
    """Members that go bad at steps of their own, in quarantine."""
    keys, when = random.split(key, 3), torch.tensor([-2.5, -7.5, -99.0])
    found = []
    for compiled in (False, True):
        svi = attrs.evolve(going_bad(counted), compiled=compiled)
        ensemble = of_ensemble(svi, in_dims=(None, 0), **settings)
        found.append(ensemble.run(keys, 12, Y, when))
    assert found[0].state.quarantined_at.tolist() == [3, 8, -1]
    assert torch.equal(found[0].state.quarantined_at, found[1].state.quarantined_at)
    torch.testing.assert_close(found[0].losses, found[1].losses, equal_nan=True)
    for one, other in zip(leaves(found[0].state), leaves(found[1].state), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("uncompiled")
def test_an_ensemble_that_cannot_be_traced(
    key: random.Key, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("purepyro.infer.svi._svi._WORTHWHILE", 3)
    svi = SVI(branching, AutoDelta(branching), ADAM)
    ensemble, keys = of_ensemble(svi, map="loop"), random.split(key, 2)
    assert ensemble.run(keys, 3, Y).losses.shape == (3, 2)
    assert "are not compiled" in caplog.text
    with pytest.raises(TraceError, match="asks a tensor for its numbers"):
        of_ensemble(attrs.evolve(svi, compiled=True), map="loop").run(keys, 3, Y)


# With the compiler

HERE = """
import sys, torch
sys.path.insert(0, {tests!r})
from purepyro.infer import load, save
from purepyro.random import key
from test_run_compiled import X, Y, compiled_line
svi = compiled_line()
state = load({path!r}, like=svi.init(key(0), X, Y))
save({path!r}, svi.run_from(state, 600, X, Y).state)
"""


def compiled_line() -> SVI[...]:
    return SVI(LINE, AutoNormal(LINE), ADAM, compiled=True, progress_bar=False)


@pytest.fixture(scope="module")
def compiled_svi() -> SVI[...]:
    """One graph for all tests below."""
    return compiled_line()


def test_compiled_runs_are_eager_runs(compiled_svi: SVI[...], key: random.Key) -> None:
    """To rounding, which a run adds up; two parts are one, to the bit, over ends of blocks."""
    found = compiled_svi.run(key, 1_200, X, Y)
    assert found.losses.shape == (1_200,)
    wanted = attrs.evolve(compiled_svi, compiled=False).run(key, 60, X, Y)
    torch.testing.assert_close(found.losses[:60], wanted.losses, rtol=1e-4, atol=1e-3)
    for cut in (1, 37, 600):
        first = compiled_svi.run(key, cut, X, Y)
        second = compiled_svi.run_from(first.state, 1_200 - cut, X, Y)
        assert same(second.state, found.state)
        assert torch.equal(torch.cat([first.losses, second.losses]), found.losses)
    assert compiled_svi._graphs.loop._built.info().misses == 1


@pytest.mark.slow
def test_a_run_goes_on_in_another_process(
    compiled_svi: SVI[...], key: random.Key, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    save(path, compiled_svi.run(key, 600, X, Y).state)
    tests = Path(__file__).parents[2]
    program = HERE.format(path=str(path), tests=str(Path(__file__).parent))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tests)])}
    subprocess.run(
        [sys.executable, "-c", f"import torch; torch.set_num_threads(1)\n{program}"],
        check=True,
        env=env,
        timeout=300,
    )
    whole = compiled_svi.run(key, 1_200, X, Y).state
    assert same(load(path, like=whole), whole)


@pytest.mark.parametrize("num_steps", [9, 40])
def test_a_compiled_step_that_goes_bad(num_steps: int, key: random.Key) -> None:
    svi = attrs.evolve(_bad(), compiled=True)
    match = r"^Step 8 made the parameters \['count'\] not finite: .*site 'bad'"
    with pytest.raises(SupportError, match=match):
        svi.run(key, num_steps, Y, torch.tensor(-7.5))


@cache
def _bad() -> SVI[[Tensor, Tensor]]:
    return going_bad(rooted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skip", "cholesky", "enum", "gamma, beta, dirichlet", "network"])
def test_compiled_cases(name: str, key: random.Key) -> None:
    test_blocks_are_steps(CASES[name], key)


def test_a_compiled_ensemble(key: random.Key) -> None:
    svi = attrs.evolve(going_bad(counted), compiled=True)
    keys, when = random.split(key, 3), torch.tensor([-2.5, -7.5, -99.0])
    ensemble = of_ensemble(svi, in_dims=(None, 0))
    found = ensemble.run(keys, 12, Y, when)
    with disable_jit():
        wanted = ensemble.run(keys, 12, Y, when)
    assert torch.equal(found.state.quarantined_at, wanted.state.quarantined_at)
    torch.testing.assert_close(found.losses, wanted.losses, equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_runs_on_cuda_are_runs_on_the_cpu(compiled_svi: SVI[...], key: random.Key) -> None:
    device = torch.device("cuda")
    wanted = compiled_svi.run(key, 50, X, Y)
    found = compiled_svi.run(random.Key(key.to(device)), 50, X.to(device), Y.to(device))
    torch.testing.assert_close(found.losses.cpu(), wanted.losses, rtol=1e-3, atol=1e-3)
    for name, value in found.state.params.items():
        torch.testing.assert_close(value.cpu(), wanted.state.params[name], rtol=1e-3, atol=1e-3)


class Expanded(Module):
    """Priors that were expanded while validation was on, and insist on it."""

    weight = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    rate = PyroSample(dist.Gamma(2.0, 1.0).expand([2]).to_event(1))

    def forward(self) -> Tensor:
        return self.weight.sum() + self.rate.sum()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_priors_that_check_their_numbers_are_traced(key: random.Key) -> None:
    model = Expanded()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.01), compiled=True)
    found = svi.run(key, 5).losses
    torch.testing.assert_close(found, attrs.evolve(svi, compiled=False).run(key, 5).losses)
