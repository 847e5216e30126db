"""Simulation-based calibration: parameters have uniform ranks among draws of their posterior.

1,000 fits at a time, by ``vmap`` over keys and data: parameters are drawn from the prior, data from
the parameters, and a chain from the posterior of each data set. Then the rank of the parameter
among 15 draws, 4 transitions apart, is uniform over 16 values (Talts et al. 2018). Step sizes are
fixed, small enough for the narrowest posterior among so many; adaptation is not under test here.
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro.infer import HMC, NUTS, Predictive, init_to_median

FITS, WARMUP, DRAWS, APART = 1_000, 40, 15, 4


class Location(Module):
    """Location and scale of five values."""

    loc = PyroSample(dist.Normal(0.0, 1.0))
    scale = PyroSample(dist.LogNormal(0.0, 0.25))

    def forward(self, y: Tensor | None = None) -> Tensor:
        loc, scale = self.loc, self.scale
        with pyro.plate("rows", 5):
            return pyro.sample("y", dist.Normal(loc, scale), obs=y)


class Shares(Module):
    """A simplex behind counts."""

    share = PyroSample(dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))

    def forward(self, y: Tensor | None = None) -> Tensor:
        return pyro.sample("y", dist.Multinomial(20, probs=self.share), obs=y)


class Groups(Module):
    """Four groups, non-centred."""

    mu = PyroSample(dist.Normal(0.0, 1.0))
    tau = PyroSample(dist.HalfNormal(0.5))
    z = PyroSample(dist.Normal(0.0, 1.0).expand([4]).to_event(1))

    def forward(self, y: Tensor | None = None) -> Tensor:
        theta = self.mu + self.tau * self.z
        with pyro.plate("groups", 4):
            return pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


KERNELS: dict[str, Any] = {
    "location": NUTS(Location(), step_size=0.2, init_strategy=init_to_median),
    "shares": HMC(Shares(), step_size=0.35, num_steps=5),
    "groups": NUTS(Groups(), step_size=0.3, init_strategy=init_to_median),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_ranks_are_uniform(key: random.Key, name: str) -> None:
    """Chi-squared tests of all elements, after Holm, at 1 %."""
    kernel = KERNELS[name]
    truth = Predictive(kernel.model, num_samples=FITS)(key)
    y = truth.pop("y")
    keys = random.split(random.key(1), FITS)
    state = torch.vmap(lambda key, y: kernel.init(random.Key(key), y))(keys, y)
    ranks = {site: torch.zeros_like(value) for site, value in truth.items()}
    for transition in range(1, WARMUP + DRAWS * APART + 1):
        state, _ = torch.vmap(kernel.step)(state, y)
        if transition > WARMUP and transition % APART == 0:
            drawn = torch.vmap(kernel.potential.constrain)(state.position, y)
            for site, value in truth.items():
                ranks[site] += drawn[site] < value
    p_values = []
    for each in ranks.values():
        for element in each.reshape(FITS, -1).unbind(-1):
            counts = torch.bincount(element.long(), minlength=DRAWS + 1)
            p_values.append(stats.chisquare(counts.numpy()).pvalue)
    corrected = [p * (len(p_values) - i) for i, p in enumerate(sorted(p_values))]
    assert min(corrected) > 0.01, ranks
