"""Twenty posteriors of posteriordb: models written anew, their data, and reference moments.

A prior that the Stan program leaves out is ``ImproperUniform``. All have the default dtype,
since a prior without parameters has no other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TypeAlias

import attrs
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import pad

from purepyro import Module, Prior, PyroSample
from purepyro.infer.mcmc import summarize

DATA = Path(__file__).parent / "data"

Data: TypeAlias = Mapping[str, Tensor]
Model: TypeAlias = Callable[..., object]


def flat(support: constraints.Constraint, *shape: int) -> dist.ImproperUniform:
    """A flat prior of an event of this shape."""
    return dist.ImproperUniform(support, (), shape)


# ------------------------------------------------------------------------------------------ models


class Regression(Module):
    """A linear regression; flat coefficients, and flat or half-Cauchy noise."""

    size: int
    noise_scale: float | None = None
    beta = PyroSample(lambda self: flat(constraints.real_vector, self.size))

    @PyroSample
    def sigma(self) -> Prior:
        if self.noise_scale is None:
            return flat(constraints.positive)
        return dist.HalfCauchy(self.noise_scale)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = x @ self.beta, self.sigma
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)


class NormalRegression(Module):
    """The same with normal coefficients and half-normal noise."""

    size: int
    beta = PyroSample(lambda self: dist.Normal(0.0, 10.0).expand([self.size]).to_event(1))
    sigma = PyroSample(lambda self: dist.HalfNormal(10.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = x @ self.beta, self.sigma
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)


class Line(Module):
    """A line with priors that the data set states: years of temperatures, almost degenerate."""

    prior: dict[str, Tensor]
    alpha = PyroSample(lambda self: dist.Normal(self.prior["pmualpha"], self.prior["psalpha"]))
    beta = PyroSample(lambda self: dist.Normal(self.prior["pmubeta"], self.prior["psbeta"]))
    sigma = PyroSample(flat(constraints.positive))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.alpha + self.beta * x, self.sigma
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)


class Diamonds(Module):
    """A regression with an intercept of its own, as brms writes it."""

    size: int
    b = PyroSample(lambda self: dist.Normal(0.0, 1.0).expand([self.size]).to_event(1))
    Intercept = PyroSample(lambda self: dist.StudentT(3.0, 8.0, 10.0))
    sigma = PyroSample(dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.Intercept + x @ self.b, self.sigma
        with pyro.plate("rows", len(x)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y)


class EightSchools(Module):
    """Non-centred."""

    mu = PyroSample(lambda self: dist.Normal(0.0, 5.0))
    tau = PyroSample(lambda self: dist.HalfCauchy(5.0))
    theta_trans = PyroSample(lambda self: dist.Normal(0.0, 1.0).expand([8]).to_event(1))

    @PyroSample
    def theta(self) -> Prior:
        return self.mu + self.tau * self.theta_trans

    def forward(self, sigma: Tensor, y: Tensor | None = None) -> Tensor:
        theta = self.theta
        with pyro.plate("schools", 8):
            return pyro.sample("y", dist.Normal(theta, sigma), obs=y)


class Autoregression(Module):
    """Each value depends on the ``order`` before it."""

    order: int
    alpha = PyroSample(lambda self: dist.Normal(0.0, 10.0))
    beta = PyroSample(lambda self: dist.Normal(0.0, 10.0).expand([self.order]).to_event(1))
    sigma = PyroSample(lambda self: dist.HalfCauchy(2.5))

    def forward(self, y: Tensor) -> Tensor:
        before = y.unfold(0, self.order, 1)[:-1].flip(-1)
        mean, sigma = self.alpha + before @ self.beta, self.sigma
        with pyro.plate("times", len(mean)):
            return pyro.sample("y", dist.Normal(mean, sigma), obs=y[self.order :])


class Garch(Module):
    """GARCH(1, 1); the support of ``beta1`` depends on ``alpha1``."""

    mu = PyroSample(flat(constraints.real))
    alpha0 = PyroSample(flat(constraints.positive))
    alpha1 = PyroSample(flat(constraints.unit_interval))
    beta1 = PyroSample(lambda self: flat(constraints.interval(0.0, 1 - self.alpha1)))

    def forward(self, y: Tensor, sigma1: Tensor) -> Tensor:
        mu = self.mu
        shocks = self.alpha0 + self.alpha1 * (y[:-1] - mu).square()
        variance = torch.cat([sigma1.square()[None], shocks])
        # Each is its shock and beta1 times the one before: all sums over 1, 2, 4, ... shocks.
        power, span = self.beta1, 1
        while span < len(y):
            variance = variance + power * pad(variance[:-span], (span, 0))
            power, span = power.square(), 2 * span
        with pyro.plate("times", len(y)):
            return pyro.sample("y", dist.Normal(mu, variance.sqrt()), obs=y)


class GaussianProcess(Module):
    """With a squared exponential covariance; ``sigma`` is a variance, as in the Stan program."""

    rho = PyroSample(lambda self: dist.Gamma(25.0, 4.0))
    alpha = PyroSample(lambda self: dist.HalfNormal(2.0))
    sigma = PyroSample(lambda self: dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        distance = (x[:, None] - x) / self.rho
        noise = self.sigma * torch.eye(len(x), dtype=x.dtype)
        covariance = self.alpha.square() * (-0.5 * distance.square()).exp() + noise
        normal = dist.MultivariateNormal(torch.zeros_like(x), covariance)
        return pyro.sample("y", normal, obs=y)


class Mixture(Module):
    """Two normals, ordered by their locations."""

    mu = PyroSample(flat(constraints.ordered_vector, 2))
    sigma = PyroSample(lambda self: dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = PyroSample(lambda self: dist.Beta(5.0, 5.0))

    def forward(self, y: Tensor) -> Tensor:
        mu, sigma, theta = self.mu, self.sigma, self.theta
        pyro.factor("locations", dist.Normal(0.0, 2.0).log_prob(mu).sum())
        weights = torch.stack([theta, 1 - theta])
        mixture = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(mu, sigma))
        with pyro.plate("rows", len(y)):
            return pyro.sample("y", mixture, obs=y)


class HiddenMarkov(Module):
    """Two hidden states with normal emissions; all states of the first time weigh the same."""

    theta1 = PyroSample(flat(constraints.simplex, 2))
    theta2 = PyroSample(flat(constraints.simplex, 2))
    mu = PyroSample(flat(constraints.positive_ordered_vector, 2))

    def forward(self, y: Tensor) -> None:
        mu = self.mu
        prior = dist.Normal(y.new_tensor([3.0, 10.0]), 1.0)
        pyro.factor("locations", prior.log_prob(mu).sum())
        emission = dist.Normal(mu, 1.0).log_prob(y[:, None])
        transition = torch.stack([self.theta1, self.theta2]).log()
        pyro.factor("y", (emission[0] + chained(transition + emission[1:, None])).logsumexp(-1))


def chained(log_factors: Tensor) -> Tensor:
    """The log of the product of all matrices, summed over its first index; in pairs."""
    while len(log_factors) > 1:
        odd = log_factors[len(log_factors) // 2 * 2 :]
        left, right = log_factors[:-1:2], log_factors[1::2]
        pairs = left[..., :, :, None] + right[..., None, :, :]
        log_factors = torch.cat([pairs.logsumexp(-2), odd])
    return log_factors[0].logsumexp(-1)


# ------------------------------------------------------------------------------------- their data


def columns(*values: Tensor) -> Tensor:
    """A design matrix, with a column of ones before these."""
    return torch.stack([torch.ones_like(values[0]), *values], dim=-1)


def kidscore(data: Data, *covariates: Tensor) -> tuple[Model, tuple[Tensor, ...]]:
    """A score by covariates of the mother."""
    x = columns(*covariates)
    return Regression(x.shape[-1], noise_scale=2.5), (x, data["kid_score"])


def regression(y: Tensor, *covariates: Tensor) -> tuple[Model, tuple[Tensor, ...]]:
    """With flat priors on all."""
    x = columns(*covariates)
    return Regression(x.shape[-1]), (x, y)


def earn_height(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return regression(data["earn"], data["height"])


def logearn_height(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return regression(data["earn"].log(), data["height"])


def logearn_interaction(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    height, male = data["height"], data["male"]
    return regression(data["earn"].log(), height, male, height * male)


def kidscore_interaction(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return kidscore(data, data["mom_hs"], data["mom_iq"], data["mom_hs"] * data["mom_iq"])


def kidscore_momhs(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return kidscore(data, data["mom_hs"])


def kidscore_momhsiq(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return kidscore(data, data["mom_hs"], data["mom_iq"])


def kidscore_momiq(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return kidscore(data, data["mom_iq"])


MESQUITE = ("diam1", "diam2", "canopy_height", "total_height", "density")


def mesquite(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return regression(data["weight"], *[data[name] for name in MESQUITE], data["group"])


def logmesquite(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    logs = [data[name].log() for name in MESQUITE]
    return regression(data["weight"].log(), *logs, data["group"])


def nes(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    ages = [(data["age_discrete"] == group).to(data["income"]) for group in (2, 3, 4)]
    before = [data[name] for name in ("real_ideo", "race_adj")]
    after = [data[name] for name in ("educ1", "gender", "income")]
    return regression(data["partyid7"], *before, *ages, *after)


def diamonds(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    carat = data["carat"] / 100
    logs = torch.stack([(data[name] / 100).log() for name in "xyz"], dim=-1)
    factors = [
        contrasts(data["cut"], 5),
        contrasts(data["color"], 7),
        contrasts(data["clarity"], 8),
    ]
    x = torch.cat([carat[:, None], logs, *factors, carat[:, None] * logs], dim=-1)
    return Diamonds(x.shape[-1]), (x - x.mean(0), data["price"].log())


def contrasts(levels: Tensor, count: int) -> Tensor:
    """Orthogonal polynomials of an ordered factor, as R has them."""
    places = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    basis, triangle = torch.linalg.qr(torch.linalg.vander(places))
    signed: Tensor = basis * triangle.diagonal().sign()
    return signed[levels.long(), 1:].to(levels)


def eight_schools(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return EightSchools(), (data["sigma"], data["y"])


def ark(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return Autoregression(int(data["K"])), (data["y"],)


def garch(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return Garch(), (data["y"], data["sigma1"])


def gp_regr(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return GaussianProcess(), (data["x"], data["y"])


def hmm_example(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return HiddenMarkov(), (data["y"],)


def kilpisjarvi(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    prior = {name: value for name, value in data.items() if name.startswith("p")}
    return Line(prior), (data["x"], data["y"])


def gauss_mix(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return Mixture(), (data["y"],)


def blr(data: Data) -> tuple[Model, tuple[Tensor, ...]]:
    return NormalRegression(data["X"].shape[-1]), (data["X"], data["y"])


BUILDERS: Mapping[str, Callable[[Data], tuple[Model, tuple[Tensor, ...]]]] = {
    "arK-arK": ark,
    "diamonds-diamonds": diamonds,
    "earnings-earn_height": earn_height,
    "earnings-logearn_height": logearn_height,
    "earnings-logearn_interaction": logearn_interaction,
    "eight_schools-eight_schools_noncentered": eight_schools,
    "garch-garch11": garch,
    "gp_pois_regr-gp_regr": gp_regr,
    "hmm_example-hmm_example": hmm_example,
    "kidiq-kidscore_interaction": kidscore_interaction,
    "kidiq-kidscore_momhs": kidscore_momhs,
    "kidiq-kidscore_momhsiq": kidscore_momhsiq,
    "kidiq-kidscore_momiq": kidscore_momiq,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "low_dim_gauss_mix-low_dim_gauss_mix": gauss_mix,
    "mesquite-logmesquite": logmesquite,
    "mesquite-mesquite": mesquite,
    "nes1972-nes": nes,
    "nes2000-nes": nes,
    "sblri-blr": blr,
}

# -------------------------------------------------------------------------------------- references


@attrs.frozen
class Reference:
    """The moments of 10,000 nearly independent draws."""

    mean: float
    sd: float
    q05: float
    q95: float

    @property
    def mcse(self) -> float:
        """The standard error of the mean."""
        return self.sd / 100


@attrs.frozen
class Posterior:
    """A model with its arguments, and what its posterior is known to be."""

    name: str
    model: Model
    args: tuple[Tensor, ...]
    references: dict[str, Reference]


@cache
def _read(data_set: str) -> dict[str, dict[str, object]]:
    read: dict[str, dict[str, object]] = json.loads((DATA / f"{data_set}.json").read_text())
    return read


def posterior(name: str) -> Posterior:
    """A posterior, by its name in posteriordb."""
    read = _read(name.split("-")[0])
    dtype = torch.get_default_dtype()
    data = {key: torch.tensor(value, dtype=dtype) for key, value in read["data"].items()}
    model, args = BUILDERS[name](data)
    known = read["posteriors"][name]
    assert isinstance(known, dict)
    return Posterior(name, model, args, {key: Reference(*row) for key, row in known.items()})


def element(values: Mapping[str, Tensor], parameter: str) -> Tensor:
    """The values of a parameter by its name in Stan, which counts from 1."""
    name, *index = re.findall(r"\w+", parameter)
    return values[name][..., int(index[0]) - 1] if index else values[name]


# -------------------------------------------------------------------------------------- comparison


@attrs.frozen
class Comparison:
    """How far draws are from a reference.

    Attributes:
        mean: The largest error of a mean, in standard errors, of the draws and the reference.
        sd: The largest relative error of a standard deviation.
        r_hat: The largest R-hat of all elements.
        ess: The smallest effective sample size of all elements, of bulk and tail.
        divergent: The share of divergent draws.
    """

    mean: float
    sd: float
    r_hat: float
    ess: float
    divergent: float

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        bounds = {
            f"a mean is off by {self.mean:.1f} standard errors": self.mean <= 4,
            f"an sd is off by {self.sd:.0%}": self.sd <= 0.1,
            f"R-hat is {self.r_hat:.3f}": self.r_hat < 1.01,
            f"{self.divergent:.1%} diverge": self.divergent <= 0.01,
        }
        return [text for text, holds in bounds.items() if not holds]


def compare(known: Posterior, samples: Data, stats: Data) -> Comparison:
    """Draws ``(chain, draw, ...)`` beside the reference."""
    sites = summarize(samples).sites
    statistics = {
        field: {name: getattr(site, field) for name, site in sites.items()}
        for field in ("mean", "sd", "mcse_mean", "r_hat", "ess_bulk", "ess_tail")
    }
    means, sds = [], []
    for parameter, reference in known.references.items():
        mean, sd, mcse = (
            element(statistics[field], parameter).item() for field in ("mean", "sd", "mcse_mean")
        )
        means.append(abs(mean - reference.mean) / math.hypot(mcse, reference.mcse))
        sds.append(abs(sd / reference.sd - 1))
    r_hats = torch.cat([value.flatten() for value in statistics["r_hat"].values()])
    sizes = [*statistics["ess_bulk"].values(), *statistics["ess_tail"].values()]
    return Comparison(
        max(means),
        max(sds),
        r_hats.max().item(),
        torch.cat([value.flatten() for value in sizes]).min().item(),
        stats["diverging"].double().mean().item(),
    )
