"""SVI reaches the exact posterior and the exact evidence of conjugate models.

Steps, draws a step and tolerances are stated in each test. Where the guide's family contains the
posterior, the bound at the optimum is the log evidence, and its estimate has no variance there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from evidence.fitting import bound, close, fit, svi
from purepyro import Module, PyroParam, PyroSample, constrain, random

FLIPS = torch.tensor([1.0] * 6 + [0.0] * 4)


def coin(flips: Tensor) -> None:
    heads = pyro.sample("heads", dist.Beta(10.0, 10.0))
    with pyro.plate("flips", len(flips)):
        pyro.sample("flip", dist.Bernoulli(heads), obs=flips)


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def test_coin_most_likely(key: random.Key) -> None:
    """No randomness: 400 steps; the share within 1e-4, the loss within 1e-4."""

    def flat(flips: Tensor) -> None:
        heads = pyro.param("heads", torch.tensor(0.5), constraint=constraints.unit_interval)
        with pyro.plate("flips", len(flips)):
            pyro.sample("flip", dist.Bernoulli(heads), obs=flips)

    state, losses = svi(flat, lambda flips: None, steps=400, particles=1).run(key, 400, FLIPS)
    close(state.params["heads"].sigmoid(), 0.6, 1e-4)
    close(losses[-1], 6.7301, 1e-4)


def test_coin_most_probable(key: random.Key) -> None:
    """No randomness: 400 steps; the share within 1e-4, the loss within 1e-4."""

    def point(flips: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.5), constraint=constraints.unit_interval)
        pyro.sample("heads", dist.Delta(at))

    state, losses = svi(coin, point, steps=400, particles=1).run(key, 400, FLIPS)
    close(state.params["at"].sigmoid(), 15 / 28, 1e-4)
    close(losses[-1], 5.6004, 1e-4)


class BetaGuide(Module):
    a = PyroParam(torch.tensor(10.0), constraint=constraints.positive)
    b = PyroParam(torch.tensor(10.0), constraint=constraints.positive)
    heads = PyroSample(lambda self: dist.Beta(self.a, self.b))

    def forward(self, flips: Tensor) -> Tensor:
        return self.heads


@pytest.mark.slow
def test_coin_posterior(key: random.Key) -> None:
    """600 steps of 16 draws; mean within .005, sd within .003, evidence within .001."""
    guide = BetaGuide()
    params = fit(svi(coin, guide, steps=600, particles=16), key, 600, FLIPS)
    found = constrain(guide, params)
    q = dist.Beta(found["a"], found["b"])
    close(q.mean, 16 / 30, 0.005)
    close(q.variance.sqrt(), 0.0896, 0.003)
    evidence = log_beta(16.0, 14.0) - log_beta(10.0, 10.0)
    close(bound(coin, guide, params, random.key(1), FLIPS), evidence, 0.001)


class GammaGuide(Module):
    """By shape and mean, which are orthogonal: by shape and rate, Adam creeps along a ridge."""

    shape = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
    mean = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
    rate = PyroSample(lambda self: dist.Gamma(self.shape, self.shape / self.mean))

    def forward(self, y: Tensor) -> Tensor:
        return self.rate


def poisson(y: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def exponential(y: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Exponential(rate), obs=y)


def gamma_evidence(shape: float, rate: float) -> float:
    """How far the normaliser of Gamma(2, 1) lies below that of Gamma(shape, rate)."""
    return math.lgamma(shape) - shape * math.log(rate)


COUNTS, WAITS = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0]), torch.tensor([0.2, 1.1, 0.4, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "y", "shape", "rate", "evidence"),
    [
        (poisson, COUNTS, 16.0, 6.0, gamma_evidence(16.0, 6.0) - COUNTS.add(1).lgamma().sum()),
        (exponential, WAITS, 6.0, 3.6, gamma_evidence(6.0, 3.6)),
    ],
)
def test_gamma_posterior(
    key: random.Key,
    model: Callable[[Tensor], None],
    y: Tensor,
    shape: float,
    rate: float,
    evidence: float,
) -> None:
    """800 steps of 32 draws; mean and sd within 2 %, evidence within .001."""
    guide = GammaGuide()
    params = fit(svi(model, guide, steps=800), key, 800, y)
    found = constrain(guide, params)
    q, exact = dist.Gamma(found["shape"], found["shape"] / found["mean"]), dist.Gamma(shape, rate)
    close(q.mean / exact.mean, 1.0, 0.02)
    close((q.variance / exact.variance).sqrt(), 1.0, 0.02)
    close(bound(model, guide, params, random.key(1), y), evidence, 0.001)
