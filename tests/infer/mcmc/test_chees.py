"""Many chains that learn one trajectory length."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from purepyro import random
from purepyro._errors import DeclarationError
from purepyro.infer import MCMC, ChEES
from purepyro.infer.mcmc._state import Length

KEY = random.key(0)


def plane() -> None:
    pyro.sample("z", dist.Normal(torch.tensor([1.0, -1.0]), torch.tensor([1.0, 4.0])).to_event(1))
    pyro.sample("rate", dist.Gamma(3.0, 2.0))


def test_it_has_the_moments_of_its_target() -> None:
    # 256 chains of 20 draws after 60 transitions of warm-up; within 4.5 standard errors.
    result = MCMC(ChEES(plane), 60, 20, 256, compiled=False).run(KEY)
    table = result.summary().sites
    for name, mean, sd in (
        ("z", torch.tensor([1.0, -1.0]), torch.tensor([1.0, 4.0])),
        ("rate", torch.tensor(1.5), torch.tensor(math.sqrt(3.0) / 2.0)),
    ):
        site = table[name]
        assert bool(((site.mean - mean).abs() < 4.5 * site.mcse_mean).all())
        assert bool(((site.sd - sd).abs() < 4.5 * site.mcse_sd).all())


@pytest.mark.slow
def test_it_learns_length_and_mass_together() -> None:
    # Of a normal with the scales 1 and 4 and an adapted mass, the best length is near a quarter of
    # a period, pi / 2, or a half with jitter; 64 chains after 400 transitions of warm-up, since the
    # length grows by some 2.5 % in each.
    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(2), torch.tensor([1.0, 4.0])).to_event(1))

    result = MCMC(ChEES(model, step_size=0.1), 400, 20, 64, compiled=False).run(KEY)
    own = result.state.adaptation
    assert isinstance(own.length, Length)
    length = own.length.log_length.exp()
    assert bool((length == length[0]).all())
    assert 1.0 < float(length[0]) < 5.0
    ratio = own.inverse_mass[0] / torch.tensor([1.0, 16.0])
    assert bool(((ratio > 0.85) & (ratio < 1.15)).all())
    assert torch.equal(own.inverse_mass, own.inverse_mass[:1].expand(64, 2))
    steps = result.stats["n_steps"]
    assert torch.equal(steps, steps[:1].expand(64, 20))
    assert len(set(steps[0].tolist())) > 1  # jittered
    assert bool((result.summary().sites["z"].ess_bulk > 640).all())


def test_it_goes_on_where_it_ended() -> None:
    whole = MCMC(ChEES(plane), 20, 6, 4, compiled=False).run(KEY)
    mcmc = MCMC(ChEES(plane), 20, 2, 4, compiled=False)
    half = mcmc.run(KEY)
    rest = mcmc.run_from(half.state, 4)
    both = torch.cat([half.samples["z"], rest.samples["z"]], 1)
    assert torch.equal(whole.samples["z"], both)


def test_chains_that_learn_together_are_not_run_apart() -> None:
    with pytest.raises(DeclarationError, match=r"chunk_size=2, but ChEES learns.*Leave chunk_size"):
        MCMC(ChEES(plane), 5, 5, 4, chunk_size=2, compiled=False).run(KEY)
