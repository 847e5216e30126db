"""SGMCMC and Laplace approximations of the library ``posteriors``, on our log density.

The model is conjugate, so that the posterior is known: a regression with normal coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro.infer import LogLikelihood, Potential

X = torch.linspace(-1.0, 1.0, 20)[:, None] ** torch.arange(2)
Y = X @ torch.tensor([0.5, -1.0]) + 0.3 * torch.sin(40 * X[:, 1])
PRECISION = X.mT @ X / 0.25 + torch.eye(2)
MEAN = torch.linalg.solve(PRECISION, X.mT @ Y / 0.25)
SD = PRECISION.inverse().diagonal().sqrt()


class Regression(Module):
    weight = PyroSample(dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = x @ self.weight
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


MODEL = Regression()
POTENTIAL = Potential(MODEL)
NOTHING = torch.zeros(())


def log_posterior(values: dict[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What ``posteriors`` asks for; it takes values in unconstrained space."""
    return POTENTIAL.log_density(values, *batch), NOTHING


def of_chains(values: dict[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The same of many chains; the gradient of the sum is that of each."""
    densities = torch.vmap(lambda each: log_posterior(each, batch)[0])(values)
    return densities.sum(), NOTHING


def log_rows(values: dict[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The log likelihood of each row."""
    sites = {k: v[None] for k, v in POTENTIAL.constrain(values, *batch).items()}
    return LogLikelihood(MODEL, {}, sites)(*batch)["y"][0], NOTHING


@pytest.fixture
def posteriors() -> Iterator[ModuleType]:
    module = pytest.importorskip("posteriors")
    assert isinstance(module, ModuleType)
    with torch.random.fork_rng(devices=[]):  # it draws from torch's generator
        torch.manual_seed(0)
        yield module


@pytest.mark.parametrize("name", ["sgld", "sghmc"])
def test_stochastic_gradients_give_the_posterior(
    posteriors: ModuleType, key: random.Key, name: str
) -> None:
    """1,000 chains of 600 steps: means within .13 sd (4 standard errors), sds within 10 %."""
    settings = {"sgld": {"lr": 1e-3}, "sghmc": {"lr": 5e-3, "alpha": 10.0}}[name]
    start = torch.vmap(lambda each: POTENTIAL.init(random.Key(each), X, Y))(
        random.split(key, 1_000)
    )
    transform = getattr(posteriors.sgmcmc, name).build(of_chains, **settings)
    state = transform.init(start)
    for _ in range(600):
        state, _ = transform.update(state, (X, Y))
    draws = state.params["weight"]
    assert ((draws.mean(0) - MEAN).abs() < 0.13 * SD).all()
    torch.testing.assert_close(draws.std(0), SD, rtol=0.1, atol=0)


# torch's own decompositions of forward-mode derivatives are TorchScript.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_the_dense_laplace_approximation_is_exact(posteriors: ModuleType) -> None:
    transform = posteriors.laplace.dense_hessian.build(log_posterior)
    state, _ = transform.update(transform.init({"weight": MEAN}), (X, Y))
    torch.testing.assert_close(state.prec, PRECISION)


def test_the_diagonal_laplace_approximation_sums_scores(posteriors: ModuleType) -> None:
    """The empirical Fisher information, beside the precision of the prior."""
    transform = posteriors.laplace.diag_fisher.build(log_rows, per_sample=True, init_prec_diag=1.0)
    state, _ = transform.update(transform.init({"weight": MEAN}), (X, Y))
    scores = X * (Y - X @ MEAN)[:, None] / 0.25
    torch.testing.assert_close(state.prec_diag["weight"], 1 + scores.square().sum(0))
