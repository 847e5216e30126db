"""NUTS on posteriors of posteriordb: moments are those of the reference draws.

All twenty are in ``benchmarks/posteriors.py``; here are those that are quick. Means have to be
within 4 standard errors (of the draws and the reference), sds within 10 %, R-hat below 1.01, and at
most 1 % of the draws may diverge.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from evidence.mcmc.posteriors import BUILDERS, compare, element, posterior
from purepyro import random
from purepyro.infer import MCMC, NUTS

# Deterministic sites; a support that depends on a site; simplexes and an ordered vector.
QUICK = (
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "hmm_example-hmm_example",
)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("name", QUICK)
def test_moments(key: random.Key, name: str) -> None:
    """4 chains, each 1,000 draws after 1,000 of warm-up."""
    known = posterior(name)
    mcmc = MCMC(NUTS(known.model), num_warmup=1_000, num_samples=1_000, num_chains=4, compiled=True)
    result = mcmc.run(key, *known.args)
    assert compare(known, result.samples, result.stats).faults == []


@pytest.mark.parametrize("name", BUILDERS)
def test_every_posterior_has_a_density(key: random.Key, name: str) -> None:
    """At a start, density and gradient are finite, and every reference names an element."""
    known = posterior(name)
    potential = NUTS(known.model).potential
    start = potential.init(key, *known.args)
    assert bool(potential.is_finite(start, *known.args))
    sites = potential.sites(start, *known.args)
    for parameter in known.references:
        assert element(sites, parameter).ndim == 0
