"""The models as purepyro Modules, which are Pyro models too."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from purepyro import Module, PyroSample

GROUPS = 1_000


class Regression(Module):
    """Weight N(0, 1), bias N(0, 10), noise HalfNormal(1)."""

    weight = PyroSample(lambda: dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
    bias = PyroSample(dist.Normal(0.0, 10.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean, noise = (x @ self.weight.mT).squeeze(-1) + self.bias, self.noise
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, noise), obs=y)


class Network(Module):
    """64-50-10, with N(0, 1) on every weight and bias."""

    weight_1 = PyroSample(lambda: dist.Normal(torch.zeros(64, 50), 1.0).to_event(2))
    bias_1 = PyroSample(lambda: dist.Normal(torch.zeros(50), 1.0).to_event(1))
    weight_2 = PyroSample(lambda: dist.Normal(torch.zeros(50, 10), 1.0).to_event(2))
    bias_2 = PyroSample(lambda: dist.Normal(torch.zeros(10), 1.0).to_event(1))

    def forward(self, x: Tensor, y: Tensor) -> None:
        hidden = torch.tanh(x @ self.weight_1 + self.bias_1)
        logits = hidden @ self.weight_2 + self.bias_2
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Categorical(logits=logits), obs=y)


class Hierarchy(Module):
    """1,000 means around one mean."""

    mean = PyroSample(dist.Normal(0.0, 5.0))
    spread = PyroSample(dist.HalfNormal(2.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    def forward(self, group: Tensor, y: Tensor) -> None:
        mean, spread, noise = self.mean, self.spread, self.noise
        with pyro.plate("groups", GROUPS):
            means = pyro.sample("means", dist.Normal(mean, spread))
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(means[group], noise), obs=y)


class Process(Module):
    """A Gaussian process with a squared exponential kernel; all three scales LogNormal(0, 1)."""

    length = PyroSample(dist.LogNormal(0.0, 1.0))
    height = PyroSample(dist.LogNormal(0.0, 1.0))
    noise = PyroSample(dist.LogNormal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        squares = ((x[:, None] - x) / self.length).square()
        covariance = self.height.square() * torch.exp(-0.5 * squares)
        covariance = covariance + (self.noise.square() + 1e-3) * torch.eye(len(x))
        factor = torch.linalg.cholesky(covariance)
        pyro.sample("obs", dist.MultivariateNormal(torch.zeros(len(x)), scale_tril=factor), obs=y)


class Number(Module):
    """One standard normal site."""

    value = PyroSample(dist.Normal(0.0, 1.0))


class Sum(Module):
    """As many sites as there are numbers; the data are around their sum."""

    numbers: tuple[Number, ...]

    def forward(self, y: Tensor) -> None:
        total = torch.stack([number.value for number in self.numbers]).sum()
        with pyro.plate("data", len(y)):
            pyro.sample("obs", dist.Normal(total, 1.0), obs=y)


def sum_of(sites: int) -> Sum:
    """The model with so many sites."""
    return Sum(numbers=tuple(Number() for _ in range(sites)))
