"""Law 12: concurrent runs give the results of serial ones, though Pyro's stack is global."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from purepyro import Module, Prior, PyroSample, apply, init, random


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
        except RuntimeError:
            return None

    serial = [run(i) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(run, range(60)))
    for one, other in zip(serial, concurrent, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (other is not None and torch.equal(one, other))
    assert sum(result is None for result in serial) == 30
