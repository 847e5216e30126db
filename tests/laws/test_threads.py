"""Law 12: concurrent runs give the results of serial ones, though Pyro's stack is global."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from torch import Tensor, nn

from purepyro import Module, Prior, PyroSample, Trace, apply, init, random, trace
from purepyro._errors import DtypeError
from purepyro.infer import SVI, AutoNormal


class Model(Module):
    """Plates, sites and a network, so that every shared thing is in use."""

    net: nn.Linear

    @PyroSample(local=True)
    def scale(self) -> Prior:
        return dist.HalfNormal(1.0)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.net(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, self.scale))


def test_four_threads_and_two_hundred_runs(key: random.Key) -> None:
    model, x = Model(nn.Linear(2, 1)), torch.ones(4, 2)
    start = init(model, key)

    def run(i: int) -> Tensor:
        params = {name: value * i for name, value in start.items()}
        return apply(model, params, random.fold_in(key, i), x)

    serial = [run(i) for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(run, range(200)))
    assert all(map(torch.equal, serial, concurrent))


def test_a_failing_thread_disturbs_no_other(key: random.Key) -> None:
    model, x = Model(nn.Linear(2, 1)), torch.ones(4, 2)
    params = init(model, key)

    def run(i: int) -> Tensor | None:
        try:
            return apply(model, params, random.fold_in(key, i), x if i % 2 else x.double())
        except DtypeError:
            return None

    serial = [run(i) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(run, range(60)))
    for one, other in zip(serial, concurrent, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (other is not None and torch.equal(one, other))
    assert sum(result is None for result in serial) == 30


def _plain_model(y: Tensor) -> Tensor:
    loc = pyro.param("loc", torch.tensor(0.5))
    z = pyro.sample("z", dist.Normal(loc, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)
    return z


def _beside(work: Callable[[], object], body: Callable[[], None]) -> None:
    """Do ``body`` while another thread does ``work`` over and over."""
    stop, failed = Event(), list[BaseException]()

    def again() -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            failed.append(error)

    other = Thread(target=again)
    other.start()
    try:
        body()
    finally:
        stop.set()
        other.join()
    assert not failed


def test_draws_of_another_thread_beside_a_run_are_all_its_own(key: random.Key) -> None:
    y = torch.tensor([1.0, 2.0])
    svi = SVI(_plain_model, AutoNormal(_plain_model), torchopt.adam(0.1), progress_bar=False)
    torch.manual_seed(7)
    drawn: list[float] = []

    def runs() -> None:
        for i in range(5):
            svi.run(random.fold_in(key, i), 20, y)

    _beside(
        lambda: drawn.extend(torch.rand(1, dtype=torch.float64).tolist()),
        runs,
    )
    after = torch.get_rng_state()
    assert len(drawn) > 100
    assert len(set(drawn)) == len(drawn)
    torch.manual_seed(7)
    alone = [float(torch.rand(1, dtype=torch.float64)) for _ in drawn]
    assert drawn == alone
    assert torch.equal(after, torch.get_rng_state())


def test_pyros_own_programs_in_another_thread_go_past_a_run(key: random.Key) -> None:
    """Handlers, plates and parameters of either thread are no business of the other's."""
    y = torch.tensor([1.0, 2.0, 3.0])
    pyro.param("loc", torch.tensor(0.5))
    store = set(pyro.get_param_store().keys())

    def plain() -> None:
        assert pyro.sample("z", dist.Delta(torch.tensor(2.0))) == 2.0
        conditioned = poutine.condition(_plain_model, {"z": torch.tensor(1.5)})
        sites = poutine.trace(conditioned).get_trace(y).nodes
        assert list(sites) == ["_INPUT", "loc", "z", "data", "y", "_RETURN"]
        assert sites["loc"]["value"] == 0.5
        assert sites["z"]["value"] == 1.5
        assert sites["y"]["cond_indep_stack"][0].dim == -1
        assert set(pyro.get_param_store().keys()) == store

    serial = [trace(_plain_model, {"loc": torch.tensor(2.0)}, key, y) for _ in range(2)]

    def runs() -> None:
        for _ in range(200):
            z, record = trace(_plain_model, {"loc": torch.tensor(2.0)}, key, y)
            assert torch.equal(z, serial[0][0])
            assert list(record.values) == ["z", "y"]

    _beside(plain, runs)
    assert set(pyro.get_param_store().keys()) == store


def test_a_handler_of_another_thread_may_begin_and_end_within_a_run(key: random.Key) -> None:
    inside, seen = Event(), Event()

    def model() -> Tensor:
        inside.set()
        assert seen.wait(20)
        return pyro.sample("ours", dist.Normal(0.0, 1.0))

    names: list[str] = []

    def plain() -> None:
        with poutine.trace() as handler:
            pyro.sample("before", dist.Normal(0.0, 1.0))
            assert inside.wait(20)
            with pyro.plate("rows", 3):
                pyro.sample("theirs", dist.Normal(0.0, 1.0))
            seen.set()
            other.join()
            names.extend(handler.trace.nodes)

    record: list[Trace] = []
    other = Thread(target=lambda: record.append(trace(model, {}, key)[1]))
    other.start()
    plain()
    assert names == ["before", "rows", "theirs"]
    assert list(record[0].values) == ["ours"]


def test_scores_under_vmap_leave_validation_as_it_was_in_all_threads(key: random.Key) -> None:
    """Scoring under vmap switches validation off, which is one switch for the process."""
    keys = random.split(key, 3)

    def scored(i: int) -> None:
        torch.vmap(lambda key: trace(_plain_model, {"loc": torch.tensor(1.0)}, key, torch.ones(2)))(
            keys
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scored, range(60)))
    assert pyro.distributions.is_validation_enabled()
    with pytest.raises(ValueError, match="constraint"):
        dist.Normal(0.0, -torch.ones(()))


def test_who_imported_pyros_stack_before_sees_the_same() -> None:
    code = (
        "import sys, types, pyro.poutine.runtime as runtime\n"
        "third = types.ModuleType('third'); third._PYRO_STACK = runtime._PYRO_STACK\n"
        "sys.modules['third'] = third\n"
        "import purepyro, pyro.poutine.messenger as messenger\n"
        "assert third._PYRO_STACK is runtime._PYRO_STACK is messenger._PYRO_STACK\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
