"""The models that many tests share."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import Module, Prior, PyroParam, PyroSample, random
from purepyro.infer import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from purepyro.infer.losses._elbo import DecomposedLoss

# Every guide that is made of a model alone, and every loss that has parts.
GUIDES: dict[str, Callable[[Callable[..., object]], AutoGuide[...]]] = {
    "AutoDelta": AutoDelta,
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": AutoLowRankMultivariateNormal,
    "AutoLaplaceApproximation": AutoLaplaceApproximation,
    "AutoIAFNormal": AutoIAFNormal,
}
LOSSES: list[Callable[..., DecomposedLoss]] = [
    Trace_ELBO,
    TraceMeanField_ELBO,
    TraceGraph_ELBO,
    TraceEnum_ELBO,
    RenyiELBO,
]


class BayesianLinear(Module):
    """A learnable prior scale, a dependent prior and a fixed one."""

    in_features: int
    out_features: int
    scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
    bias = PyroSample(dist.Normal(0.0, 10.0))

    @PyroSample
    def weight(self) -> Prior:
        shape = [self.out_features, self.in_features]
        return dist.Normal(0.0, self.scale).expand(shape).to_event(2)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT + self.bias


class BayesianRegression(Module):
    """The regression of the README; the noise is read before the plate, so it is one value."""

    linear: BayesianLinear
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.linear(x).squeeze(-1), self.sigma
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def regression() -> BayesianRegression:
    """Three columns, one target."""
    return BayesianRegression(linear=BayesianLinear(3, 1))


def regression_data(rows: int = 20) -> tuple[Tensor, Tensor]:
    """Columns and targets with known coefficients 1, -2, 0.5 and intercept 0.3."""
    x = random.normal(random.key(10), rows, 3)
    noise = random.normal(random.key(11), rows)
    return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 + 0.1 * noise


def normal_normal(y: Tensor) -> None:
    """A conjugate model: the posterior of ``loc`` is N(sum(y) / (n + 1), 1 / (n + 1))."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
