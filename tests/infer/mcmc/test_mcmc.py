"""Runs of chains: right posteriors, warm-up, and that a chain depends on its key alone."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import optree
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from purepyro import Module, PyroSample, random
from purepyro._errors import DeclarationError, ShapeError, SupportError
from purepyro.infer import (
    HMC,
    MCMC,
    NUTS,
    LogLikelihood,
    MCMCResult,
    MCMCState,
    Predictive,
    init_to_value,
    load,
    save,
)
from purepyro.infer.mcmc._state import Adaptation

Kernel: TypeAlias = HMC[[Tensor, Tensor | None]] | NUTS[[Tensor, Tensor | None]]
Compiled: TypeAlias = tuple[MCMC[[Tensor, Tensor | None]], MCMCState, MCMCResult]

KEY = random.key(0)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])


def schools(sigma: Tensor, y: Tensor | None) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(sigma)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def normal(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def leaves(tree: object) -> list[Tensor]:
    trees: Any = optree  # whose types know no NamedTuple
    return [*trees.tree_leaves(tree)]


def same(one: object, other: object) -> bool:
    return all(map(torch.equal, leaves(one), leaves(other)))


def chain(result: MCMCResult, i: int) -> tuple[object, ...]:
    state: Any = optree
    one = state.tree_map(lambda leaf: leaf[i], result.state)
    return (
        one,
        {n: v[i] for n, v in result.samples.items()},
        {n: v[i] for n, v in result.stats.items()},
    )


# Right posteriors


def test_a_correlated_normal_has_its_moments() -> None:
    # 256 chains of 20 draws; means and variances within 4.5 standard errors by the sample's own
    # effective sizes, of which there are at least 1,500.
    root = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [-0.5, 0.5, 0.8]])
    mean = torch.tensor([1.0, -2.0, 0.5])

    def model() -> None:
        pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=root))

    kernel = NUTS(model, step_size=0.4, adapt_step_size=False, adapt_mass_matrix=False)
    result = MCMC(kernel, 40, 20, 256, compiled=False).run(KEY)
    table = result.summary().sites["z"]
    sd = (root @ root.mT).diagonal().sqrt()
    assert bool(((table.mean - mean).abs() < 4.5 * table.mcse_mean).all())
    assert bool(((table.sd - sd).abs() < 4.5 * table.mcse_sd).all())
    assert bool((table.ess_bulk > 1_500).all())
    assert not bool(result.stats["diverging"].any())


def test_constrained_sites_have_their_posterior() -> None:
    # Beta-binomial, gamma-exponential and an improper scale, each known in closed form; 256
    # chains of 20 draws, means within 4.5 standard errors.
    count, waits = torch.tensor(7.0), torch.tensor([0.5, 1.5, 1.0])

    def model() -> None:
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        pyro.sample("count", dist.Binomial(10, p), obs=count)
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("wait", dist.Exponential(rate), obs=waits)
        loc = pyro.sample("loc", dist.ImproperUniform(constraints.real, (), ()))
        pyro.sample("seen", dist.Normal(loc, 2.0), obs=torch.tensor(3.0))

    for kernel in (NUTS(model), HMC(model, num_steps=4)):
        result = MCMC(kernel, 40, 20, 256, compiled=False).run(KEY)
        table = result.summary().sites
        wanted = {
            "p": (9 / 15, (9 * 6 / (15**2 * 16)) ** 0.5),
            "rate": (5 / 4, 5**0.5 / 4),
            "loc": (3.0, 2.0),
        }
        for name, (mean, sd) in wanted.items():
            site = table[name]
            assert abs(float(site.mean) - mean) < 4.5 * float(site.mcse_mean), name
            assert abs(float(site.sd) - sd) < 4.5 * float(site.mcse_sd), name


def test_summed_out_sites_leave_the_posterior_right() -> None:
    # A mixture whose weight alone is unknown: its posterior by a grid; 128 chains of 20 draws.
    x = torch.tensor([-2.0, 2.2, 1.8, 2.1])

    def model(x: Tensor) -> None:
        weight = pyro.sample("weight", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Bernoulli(weight))
            pyro.sample("x", dist.Normal(4.0 * k - 2.0, 1.0), obs=x)

    grid = (torch.arange(2_000) + 0.5) / 2_000
    up, down = dist.Normal(2.0, 1.0).log_prob(x).exp(), dist.Normal(-2.0, 1.0).log_prob(x).exp()
    density = (grid[:, None] * up + (1 - grid[:, None]) * down).prod(-1)
    mean = float((grid * density).sum() / density.sum())
    site = MCMC(NUTS(model), 40, 20, 128, compiled=False).run(KEY, x).summary().sites["weight"]
    assert abs(float(site.mean) - mean) < 4.5 * float(site.mcse_mean)


# Warm-up


@pytest.mark.slow
def test_warm_up_finds_step_size_and_mass() -> None:
    # 16 chains, 300 transitions of warm-up, of which the last window has 150: the mean acceptance
    # of 20 draws within 0.02 of NumPyro's (0.924 and 0.928 at two seeds, for the same target: the
    # averaged step is shorter than what meets it), the inverse mass within 20 % of the variances.
    scale = torch.tensor([0.4, 1.0, 2.5])

    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(3), scale).to_event(1))

    kernel = NUTS(model, target_accept_prob=0.85)
    result = MCMC(kernel, 300, 20, 16, compiled=False).run(KEY)
    own = result.state.adaptation
    assert abs(float(result.stats["acceptance_rate"].mean()) - 0.926) < 0.02
    ratio = own.inverse_mass.mean(0) / scale.square()
    assert bool(((ratio > 0.8) & (ratio < 1.2)).all())
    assert torch.equal(result.stats["step_size"], own.step_size.unsqueeze(-1).expand(16, 20))


def test_a_block_of_the_mass_matrix_is_dense() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(torch.stack([a, -a]), 0.2).to_event(1))
        pyro.sample("c", dist.Normal(a, 0.2))

    kernel = NUTS(model, dense_mass=[("a", "b")], step_size=0.2)
    own = MCMC(kernel, 40, 2, 2, compiled=False).run(KEY).state.adaptation
    assert own.inverse_mass.shape == (2, 4, 4)
    assert bool((own.inverse_mass[:, :3, :3] != 0).all())
    assert bool((own.inverse_mass[:, 3, :3] == 0).all())
    product = own.mass_root @ own.mass_root.mT @ own.inverse_mass
    torch.testing.assert_close(product, torch.eye(4).expand(2, 4, 4), rtol=1e-3, atol=1e-3)


def test_what_is_not_to_be_adapted_is_not() -> None:
    kernel = NUTS(normal, step_size=0.3, adapt_step_size=False, adapt_mass_matrix=False)
    own = MCMC(kernel, 25, 2, 2, compiled=False).run(KEY, Y[:3]).state.adaptation
    assert torch.equal(own.step_size, torch.full((2,), 0.3))
    assert torch.equal(own.inverse_mass, torch.ones(2, 1))


# A chain depends on its key alone


@pytest.mark.parametrize("kernel", [NUTS(schools), HMC(schools, num_steps=3)], ids=["nuts", "hmc"])
def test_a_chain_alone_is_the_chain_among_many(kernel: Kernel) -> None:
    def run(chains: int, chunk_size: int | None = None) -> MCMCResult:
        mcmc = MCMC(kernel, 22, 3, chains, chunk_size=chunk_size, compiled=False)
        return mcmc.run(KEY, SIGMA, Y)

    many = run(5)
    assert same(chain(many, 0), chain(run(1), 0))
    for other in (run(5, 2), run(7, 3)):
        for i in range(5):
            assert same(chain(many, i), chain(other, i))


def test_a_run_is_the_steps_of_its_kernel() -> None:
    kernel = NUTS(schools, step_size=0.5)
    result = MCMC(kernel, 0, 4, 2, compiled=False).run(KEY, SIGMA, Y)
    for i in range(2):
        state = kernel.init(random.fold_in(KEY, i), SIGMA, Y)
        for draw in range(4):
            state, info = kernel.step(state, SIGMA, Y)
            assert torch.equal(result.samples["mu"][i, draw], state.position["mu"])
            assert torch.equal(result.stats["energy"][i, draw], info.energy)
            assert torch.equal(result.stats["n_steps"][i, draw], info.n_steps)


def test_a_run_goes_on_where_it_ended() -> None:
    mcmc = MCMC(NUTS(schools), 22, 7, 2, compiled=False)
    whole = mcmc.run(KEY, SIGMA, Y)
    half = MCMC(NUTS(schools), 22, 3, 2, compiled=False).run(KEY, SIGMA, Y)
    rest = mcmc.run_from(half.state, 4, SIGMA, Y)
    for name, value in whole.samples.items():
        assert torch.equal(value, torch.cat([half.samples[name], rest.samples[name]], 1))
    assert same(whole.state, rest.state)


def test_a_run_goes_on_in_another_process(tmp_path: Path) -> None:
    half = MCMC(NUTS(normal), 22, 5, 2, compiled=False).run(KEY, Y[:3])
    save(tmp_path / "state.pt", half.state)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_mcmc import *
mcmc = MCMC(NUTS(normal), 22, 5, 2, compiled=False)
state = load({str(tmp_path / "state.pt")!r}, like=mcmc.init(random.key(9), Y[:3]))
save({str(tmp_path / "rest.pt")!r}, mcmc.run_from(state, 5, Y[:3]).samples)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    whole = MCMC(NUTS(normal), 22, 10, 2, compiled=False).run(KEY, Y[:3])
    rest = load(tmp_path / "rest.pt", like={"loc": torch.zeros(2, 5)})
    assert torch.equal(whole.samples["loc"], torch.cat([half.samples["loc"], rest["loc"]], 1))


def test_thinning_keeps_every_so_many() -> None:
    all_of_them = MCMC(NUTS(normal), 30, 12, 2, compiled=False).run(KEY, Y[:3])
    thinned = MCMC(NUTS(normal), 30, 4, 2, thinning=3, compiled=False).run(KEY, Y[:3])
    assert torch.equal(thinned.samples["loc"], all_of_them.samples["loc"][:, 2::3])
    assert same(thinned.state, all_of_them.state)


def test_a_run_changes_nothing_outside() -> None:
    before = torch.get_rng_state()
    mcmc = MCMC(NUTS(normal), 10, 5, compiled=False)
    one, two = mcmc.run(KEY, Y[:3]), mcmc.run(KEY, Y[:3])
    assert same(one[:3], two[:3])
    assert torch.equal(torch.get_rng_state(), before)
    again = pickle.loads(pickle.dumps(mcmc))
    assert same(again.run(KEY, Y[:3])[:3], one[:3])


# What comes out


def test_results_have_the_names_of_arviz() -> None:
    result = MCMC(NUTS(schools), 20, 10, 2, compiled=False).run(KEY, SIGMA, Y)
    assert {n: tuple(v.shape) for n, v in result.samples.items()} == {
        "mu": (2, 10),
        "tau": (2, 10),
        "theta": (2, 10, 8),
        "z": (2, 10, 8),
    }
    assert {n: v.dtype for n, v in result.stats.items()} == {
        "acceptance_rate": torch.float32,
        "diverging": torch.bool,
        "energy": torch.float32,
        "lp": torch.float32,
        "n_steps": torch.int64,
        "step_size": torch.float32,
        "tree_depth": torch.int64,
    }
    samples = result.samples
    theta = samples["mu"][..., None] + samples["tau"][..., None] * samples["z"]
    torch.testing.assert_close(samples["theta"], theta)
    data = result.to_inference_data()
    assert data.posterior["theta"].shape == (2, 10, 8)
    assert data.sample_stats["diverging"].shape == (2, 10)


def test_draws_go_into_prediction_and_comparison() -> None:
    result = MCMC(NUTS(schools), 20, 10, 2, compiled=False).run(KEY, SIGMA, Y)
    draws = result.get_samples()
    assert result.get_samples(group_by_chain=True)["z"].shape == (2, 10, 8)
    predicted = Predictive(schools, posterior_samples=draws)(KEY, SIGMA, None)
    assert predicted["y"].shape == (20, 8)
    score = LogLikelihood(schools, {}, draws)(SIGMA, Y)["y"]
    wanted = dist.Normal(draws["theta"], SIGMA).log_prob(Y)
    torch.testing.assert_close(score, wanted)


def test_modules_and_float64() -> None:
    class Line(Module):
        slope = PyroSample(dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))

        def forward(self, x: Tensor, y: Tensor) -> None:
            slope = self.slope
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    x = torch.arange(4.0, dtype=torch.float64)
    result = MCMC(NUTS(Line()), 40, 20, 64, compiled=False).run(KEY, x, 2.0 * x)
    assert result.samples["slope"].dtype == torch.float64
    assert result.stats["energy"].dtype == torch.float64
    site = result.summary().sites["slope"]
    assert abs(float(site.mean) - 28 / 15) < 4.5 * float(site.mcse_mean)


def test_reports_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    kernel = NUTS(normal, step_size=100.0, adapt_step_size=False)
    with caplog.at_level(logging.WARNING, "purepyro.infer"):
        result = MCMC(kernel, 0, 10, compiled=False).run(KEY, Y[:3])
    assert any("diverge" in text for text in result.warnings)
    assert all(any(text in record.message for record in caplog.records) for text in result.warnings)


def test_progress_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "purepyro.infer"):
        MCMC(NUTS(normal), 30, 30, compiled=False, progress_bar=False).run(KEY, Y[:3])
    assert any("of 60 transitions, step size" in record.message for record in caplog.records)


# What it refuses


def test_settings_are_checked() -> None:
    kernel = NUTS(normal)
    for name in ("num_samples", "num_chains", "thinning"):
        settings: dict[str, Any] = {"num_samples": 1, name: 0}
        with pytest.raises(ShapeError, match=f"{name} is 0"):
            MCMC(kernel, 10, **settings)
    with pytest.raises(ShapeError, match="num_warmup is -1"):
        MCMC(kernel, -1, 10)
    with pytest.raises(ShapeError, match="num_samples is True"):
        MCMC(kernel, 10, True)
    wrong: Any = normal
    with pytest.raises(DeclarationError, match=r"no kernel.*NUTS"):
        MCMC(wrong, 10, 10)
    mcmc = MCMC(kernel, 0, 5, compiled=False)
    with pytest.raises(ShapeError, match="along a first dimension"):
        mcmc.run_from(kernel.init(KEY, Y), 5, Y)


def test_a_bad_start_names_the_site() -> None:
    bad = torch.tensor([0.0, torch.nan])
    with pytest.raises(SupportError, match="site 'y'"):
        MCMC(NUTS(normal), 10, 10, 3, compiled=False).run(KEY, bad)


def test_starts_that_are_not_finite_are_tried_again() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("wall", torch.where(z > 0.0, 0.0, -torch.inf))

    result = MCMC(NUTS(model), 0, 1, 6, compiled=False).run(KEY)
    for i in range(6):
        start = NUTS(model).init(random.fold_in(KEY, i)).position["z"]
        assert float(start) > 0.0
    assert bool((result.samples["z"] > 0.0).all())


def test_chains_start_where_they_are_told() -> None:
    strategy = init_to_value(values={"loc": torch.tensor(3.0)})
    mcmc = MCMC(NUTS(normal, init_strategy=strategy), 0, 1, 2, compiled=False)
    assert torch.equal(mcmc.init(KEY, Y[:3]).position["loc"], torch.full((2,), 3.0))


# Compiled


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    """A compiled run of two chains without adaptation, and where it started."""
    kernel = NUTS(schools, step_size=0.4, adapt_step_size=False, adapt_mass_matrix=False)
    mcmc = MCMC(kernel, 20, 60, 2, compiled=True)
    state = mcmc.init(KEY, SIGMA, Y)
    return mcmc, state, mcmc.run_from(state, 60, SIGMA, Y)


@pytest.mark.slow
@pytest.mark.compiled
def test_compiled_transitions_are_eager_ones(compiled: Compiled) -> None:
    # To rounding, which trajectories amplify; so each of 50 starts from the compiled chain's state.
    mcmc, state, _ = compiled
    kernel = mcmc.kernel
    for _ in range(50):
        after = mcmc.run_from(state._replace(adaptation=_done(state)), 1, SIGMA, Y)
        for i in range(2):
            one: Any = optree
            own = one.tree_map(lambda leaf, i=i: leaf[i], state)
            own, info = kernel.step(own, SIGMA, Y)
            for name, value in own.position.items():
                torch.testing.assert_close(
                    after.state.position[name][i], value, rtol=1e-3, atol=1e-3
                )
            assert int(info.n_steps) == int(after.stats["n_steps"][i, 0])
        state = after.state


def _done(state: MCMCState) -> Adaptation:
    """The adaptation with no warm-up planned."""
    schedule = torch.full_like(state.adaptation.schedule, -1)
    return state.adaptation._replace(schedule=schedule)


@pytest.mark.slow
@pytest.mark.compiled
def test_compiled_runs_go_on_where_they_ended(compiled: Compiled) -> None:
    mcmc, state, whole = compiled
    half = mcmc.run_from(state, 25, SIGMA, Y)
    rest = mcmc.run_from(half.state, 35, SIGMA, Y)
    for name, value in whole.samples.items():
        assert torch.equal(value, torch.cat([half.samples[name], rest.samples[name]], 1))
    assert same(whole.state, rest.state)


@pytest.mark.slow
@pytest.mark.compiled
def test_within_a_width_compiled_chains_depend_on_their_key_alone(compiled: Compiled) -> None:
    mcmc, _, whole = compiled
    for chains in (1, 3):
        state = MCMC(mcmc.kernel, 20, 60, chains).init(KEY, SIGMA, Y)
        padded = MCMC(mcmc.kernel, 20, 60, chains, chunk_size=2, compiled=True)
        other = padded.run_from(state, 60, SIGMA, Y)
        for i in range(min(chains, 2)):
            assert same(chain(whole, i), chain(other, i))
