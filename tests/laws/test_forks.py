"""A child forked at any moment can run, also while another thread is in a run."""

from __future__ import annotations

import os
import random as python_random
import signal
import threading
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.poutine import runtime
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from purepyro import apply, random
from purepyro.infer import SVI, AutoNormal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

_SECONDS = 20  # a child takes far less than one


def _model(y: Tensor) -> Tensor:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
    return loc


def _forked(body: Callable[[], bool]) -> int:
    """The process id of a child that does ``body``, and ends by 0 if that is true."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(_SECONDS)  # one that hangs is ended by it
        code = 0 if body() else 2
    finally:
        os._exit(code)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of threads
def test_twenty_children_forked_while_another_thread_runs(key: random.Key) -> None:
    y = torch.tensor([1.0, 2.0])
    svi = SVI(_model, AutoNormal(_model), torchopt.adam(0.1))
    start = svi.init(key, y)
    loc, (after, loss) = apply(_model, {}, key, y), svi.step(start, y)

    def same() -> bool:
        again, at = svi.step(start, y)
        return (
            not len(runtime._PYRO_STACK)
            and torch.equal(apply(_model, {}, key, y), loc)
            and torch.equal(at, loss)
            and all(torch.equal(again.params[name], after.params[name]) for name in after.params)
            and torch.equal(pyro.param("kept"), torch.tensor(3.0))
        )

    stop = threading.Event()

    def steps() -> None:
        state = start
        while not stop.is_set():
            state, _ = svi.step(state, y)

    pyro.param("kept", torch.tensor(3.0))
    moments = python_random.Random(0)
    other = threading.Thread(target=steps)
    other.start()
    try:
        ends = []
        for _ in range(20):
            time.sleep(moments.random() * 0.01)
            ends.append(os.waitpid(_forked(same), 0)[1])
    finally:
        stop.set()
        other.join()
    assert ends == [0] * 20


def test_a_child_forked_by_the_model_goes_on_with_its_run(key: random.Key) -> None:
    ends: list[int] = []

    def forking() -> Tensor:
        before = pyro.sample("a", dist.Normal(0.0, 1.0))
        ends.append(
            os.waitpid(_forked(lambda: bool(pyro.sample("b", dist.Delta(before)) == before)), 0)[1]
        )
        return before

    apply(forking, {}, key)
    assert ends == [0]


class _Drawn(Dataset[Tensor]):
    """Rows that a model draws, in the workers of a loader."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return apply(_model, {}, random.fold_in(random.key(0), index), torch.zeros(1))


@pytest.mark.slow
def test_workers_of_a_loader_run_models_beside_a_run(key: random.Key) -> None:
    y = torch.tensor([1.0, 2.0])
    svi = SVI(_model, AutoNormal(_model), torchopt.adam(0.1))
    start = svi.init(key, y)
    stop = threading.Event()

    def steps() -> None:
        while not stop.is_set():
            svi.step(start, y)

    rows = _Drawn()
    other = threading.Thread(target=steps)
    other.start()
    try:
        loader = DataLoader(rows, num_workers=2, multiprocessing_context="fork", timeout=60)
        drawn = list(loader)
    finally:
        stop.set()
        other.join()
    assert [float(row) for row in drawn] == [float(rows[i]) for i in range(4)]
