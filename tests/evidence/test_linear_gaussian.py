"""Linear models with normal noise: SVI against the exact posterior, at full and at mean field.

With the prior N(0, I), rows X and noise s, the posterior is normal with precision
``L = X'X / s^2 + I`` and mean ``L^-1 X'y / s^2``. A full covariance reaches it, and the bound is
the log evidence. The best independent normals have the same mean, the variances ``1 / L_ii`` and a
bound that is lower by ``(logdet diag L - logdet L) / 2`` (Bishop 2006, section 10.1.2).
"""

from __future__ import annotations

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import transform_to

from evidence.fitting import FullNormal, bound, close, fit, svi
from purepyro import Module, Prior, PyroSample, constrain, random
from purepyro.infer import AutoNormal

NOISE, ROWS = 0.5, 30


class Line(Module):
    dim: int
    dtype: torch.dtype = torch.float32

    @PyroSample
    def coefficient(self) -> Prior:
        zeros = torch.zeros(self.dim, dtype=self.dtype)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = x @ self.coefficient
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, NOISE), obs=y)


class Exact(NamedTuple):
    mean: Tensor
    precision: Tensor
    log_evidence: Tensor


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Three columns, of which two have a correlation of some .8."""
    x = random.normal(random.key(10), ROWS, 3, dtype=dtype)
    x = torch.stack([x[:, 0], 0.8 * x[:, 0] + 0.6 * x[:, 1], x[:, 2]], 1)
    noise = NOISE * random.normal(random.key(11), ROWS, dtype=dtype)
    return x, x @ torch.tensor([1.0, -2.0, 0.5], dtype=dtype) + noise


def solve(x: Tensor, y: Tensor) -> Exact:
    """The exact posterior, in float64."""
    x, y = x.double(), y.double()
    precision = x.mT @ x / NOISE**2 + torch.eye(x.shape[1], dtype=x.dtype)
    covariance = x @ x.mT + NOISE**2 * torch.eye(len(x), dtype=x.dtype)
    evidence = dist.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)
    return Exact(torch.linalg.solve(precision, x.mT @ y) / NOISE**2, precision, evidence)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_covariance_is_the_posterior(key: random.Key, dtype: torch.dtype) -> None:
    """1,000 steps of 32 draws.

    Mean within .05 sd, sd within 2 %, covariances within .03 of their variances, the bound within
    .001 of the log evidence.
    """
    model, guide, (x, y) = Line(3, dtype), FullNormal(3, dtype), data(dtype)
    params = fit(svi(model, guide, steps=1_000), key, 1_000, x, y)
    found, exact = constrain(guide, params), solve(x, y)
    assert {value.dtype for value in found.values()} == {dtype}
    loc, tril = found["loc"].double(), found["scale_tril"].double()
    covariance, expected = tril @ tril.mT, torch.linalg.inv(exact.precision)
    sd = expected.diagonal().sqrt()
    close((loc - exact.mean) / sd, torch.zeros(3), 0.05)
    close(covariance.diagonal().sqrt() / sd, torch.ones(3), 0.02)
    close(covariance / sd.outer(sd), expected / sd.outer(sd), 0.03)
    reached = bound(model, guide, params, random.key(1), x, y)
    close(reached.double(), exact.log_evidence, 0.001)


@pytest.mark.slow
def test_mean_field_is_the_best_independent_normal(key: random.Key) -> None:
    """1,000 steps of 32 draws; mean within .05 sd, sd within 2 %, bound within .01."""
    model, (x, y) = Line(3), data(torch.float32)
    guide = AutoNormal(model)
    params = fit(svi(model, guide, steps=1_000), key, 1_000, x, y)
    found, exact = constrain(guide, params, x, y), solve(x, y)
    sd = exact.precision.diagonal().rsqrt()
    close((found["locs.coefficient"].double() - exact.mean) / sd, torch.zeros(3), 0.05)
    close(found["scales.coefficient"].double() / sd, torch.ones(3), 0.02)
    gap = 0.5 * (exact.precision.diagonal().log().sum() - exact.precision.logdet())
    assert gap > 0.3
    reached = bound(model, guide, params, random.key(1), x, y, draws=100_000)
    close(reached.double(), exact.log_evidence - gap, 0.01)


def chain(end: Tensor) -> None:
    """Each of ``x1 x2 x3`` is normal around the one before it, and the end around the last."""
    x1 = pyro.sample("x1", dist.Normal(0.0, 1.0))
    x2 = pyro.sample("x2", dist.Normal(x1, 1.0))
    x3 = pyro.sample("x3", dist.Normal(x2, 1.0))
    pyro.sample("end", dist.Normal(x3, 1.0), obs=end)


def chain_guide(end: Tensor) -> None:
    """One normal of three dimensions, handed out to the three sites."""
    loc = pyro.param("loc", torch.zeros(3))
    tril = pyro.param("tril", torch.eye(3), constraint=constraints.lower_cholesky)
    joint = dist.MultivariateNormal(loc, scale_tril=tril)
    together = pyro.sample("together", joint, infer={"is_auxiliary": True})
    for index, name in enumerate(("x1", "x2", "x3")):
        pyro.sample(name, dist.Delta(together[index]))


@pytest.mark.slow
def test_a_gaussian_chain(key: random.Key) -> None:
    """1,000 steps of 32 draws; means within .02, precisions within 3 %, the bound within .001.

    The exact answer is that of a Brownian bridge from 0 to 1 (Pyro's ``test_hmc.py``).
    """
    end = torch.tensor(1.0)
    params = fit(svi(chain, chain_guide, steps=1_000), key, 1_000, end)
    tril = transform_to(constraints.lower_cholesky)(params["tril"])
    precisions = 1 / (tril @ tril.mT).diagonal()
    close(params["loc"], torch.tensor([0.25, 0.5, 0.75]), 0.02)
    close(precisions / torch.tensor([4 / 3, 1.0, 4 / 3]), torch.ones(3), 0.03)
    evidence = dist.Normal(0.0, 2.0).log_prob(end)
    close(bound(chain, chain_guide, params, random.key(1), end), evidence, 0.001)
