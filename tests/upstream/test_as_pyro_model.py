"""Outside of ``apply`` a Module is an ordinary Pyro model: Pyro's own algorithms run on it."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
    infer_discrete,
)
from pyro.infer import autoguide as guides
from pyro.infer.autoguide.initialization import init_to_mean
from pyro.optim import Adam, ClippedAdam
from pyro.poutine import Trace
from torch import Tensor, nn

from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    init,
    log_density,
    random,
    trace,
    unconstrain,
)

X = torch.linspace(-2.0, 2.0, 20)
Y = 1.5 * X - 0.5 + 0.1 * torch.sin(9 * X)


class Line(Module):
    """A regression line with learned and random parts."""

    subsample: int | None = None
    scale = PyroParam(torch.tensor(5.0), constraint=constraints.positive)
    bias = PyroSample(dist.Normal(0.0, 5.0))
    noise = PyroSample(dist.HalfNormal(1.0))

    @PyroSample
    def slope(self) -> Prior:
        return dist.Normal(0.0, self.scale)

    @PyroSample
    def at_one(self) -> Tensor:
        return self.slope + self.bias

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        slope, bias, noise = self.slope, self.bias, self.noise + 0 * self.at_one
        with pyro.plate("data", len(x), subsample_size=self.subsample) as index:
            at = None if y is None else y[index]
            return pyro.sample("y", dist.Normal(slope * x[index] + bias, noise), obs=at)


LATENT = {"slope", "bias", "noise"}


def sites(tr: Trace) -> dict[str, Tensor]:
    """The values of the sites of one of Pyro's traces, but for plates."""
    names = [*tr.stochastic_nodes, *tr.observation_nodes]
    return {n: torch.as_tensor(tr.nodes[n]["value"]).detach() for n in names if n != "data"}


def test_trace_has_the_sites_of_ours(key: random.Key) -> None:
    model = Line()
    tr = poutine.trace(model).get_trace(X, Y)
    _, record = trace(model, init(model, key), key, X, Y)
    assert set(sites(tr)) == set(record.values) == LATENT | {"at_one", "y"}
    assert set(record.latents) == LATENT
    assert set(tr.param_nodes) == set(init(model, key)) == {"scale"}
    latents = {name: sites(tr)[name] for name in LATENT}
    torch.testing.assert_close(
        log_density(model, init(model, key), latents, X, Y),
        torch.as_tensor(tr.log_prob_sum()).detach(),
    )


def test_each_call_draws_anew_and_reads_fields_once() -> None:
    model = Line()
    first, second = (poutine.trace(model).get_trace(X) for _ in range(2))
    assert not sites(first)["slope"].equal(sites(second)["slope"])
    assert sites(first)["slope"].shape == ()


def test_parameters_live_in_pyros_store() -> None:
    model = Line()
    assert len(pyro.get_param_store()) == 0
    model(X)
    assert set(pyro.get_param_store().keys()) == {"scale"}
    assert pyro.param("scale").item() == 5.0
    pyro.get_param_store()["scale"] = torch.tensor(1e-6)
    assert abs(float(sites(poutine.trace(model).get_trace(X))["slope"])) < 1e-4


def test_names_in_the_store_of_a_tree_with_a_network() -> None:
    class Tree(Module):
        line: Line
        net: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(self.line(x))
            return y

    net = nn.Linear(20, 1)
    Tree(Line(), net)(X)
    assert set(pyro.get_param_store().keys()) == {"net.weight", "net.bias", "line.scale"}
    assert pyro.param("net.weight") is not net.weight
    torch.testing.assert_close(pyro.param("net.weight").detach(), net.weight.detach())


GUIDES: list[Callable[..., guides.AutoGuide]] = [
    guides.AutoNormal,
    guides.AutoDelta,
    guides.AutoDiagonalNormal,
    guides.AutoMultivariateNormal,
    guides.AutoLowRankMultivariateNormal,
    guides.AutoLaplaceApproximation,
]


@pytest.mark.parametrize("auto", GUIDES, ids=lambda auto: auto.__name__)
def test_svi_trains_with_autoguides(auto: Callable[..., guides.AutoGuide]) -> None:
    model = Line()
    guide = auto(model, init_loc_fn=init_to_mean)
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO())
    losses = [float(svi.step(X, Y)) for _ in range(120)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert pyro.param("scale").item() != 5.0
    if isinstance(guide, guides.AutoLaplaceApproximation):
        guide = guide.laplace_approximation(X, Y)
    median = guide.median(X, Y)
    assert float(median["slope"]) == pytest.approx(1.5, abs=0.4)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
def test_svi_trains_with_subsampling(loss: type[Trace_ELBO]) -> None:
    model = Line(subsample=5)
    guide = guides.AutoNormal(model)
    svi = SVI(model, guide, ClippedAdam({"lr": 0.05}), loss(num_particles=2))
    losses = [float(svi.step(X, Y)) for _ in range(120)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_module_as_guide() -> None:
    class Guide(Module):
        loc = PyroParam(torch.zeros(2))
        spread = PyroParam(torch.ones(2), constraint=constraints.positive)
        noise_at = PyroParam(torch.tensor(1.0), constraint=constraints.positive)
        slope = PyroSample(lambda self: dist.Normal(self.loc[0], self.spread[0]))
        bias = PyroSample(lambda self: dist.Normal(self.loc[1], self.spread[1]))
        noise = PyroSample(lambda self: dist.Delta(self.noise_at))

        def forward(self, x: Tensor, y: Tensor | None = None) -> None:
            _ = self.slope, self.bias, self.noise

    svi = SVI(Line(), Guide(), Adam({"lr": 0.05}), Trace_ELBO())
    losses = [float(svi.step(X, Y)) for _ in range(150)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert pyro.param("loc")[0].item() == pytest.approx(1.5, abs=0.4)


def test_nuts_samples() -> None:
    model = Line()
    kernel = NUTS(model, jit_compile=False)
    mcmc = MCMC(kernel, num_samples=30, warmup_steps=40, disable_progbar=True)
    mcmc.run(X, Y)
    samples = mcmc.get_samples()
    assert set(samples) == LATENT
    assert samples["slope"].shape == (30,)
    assert float(samples["slope"].mean()) == pytest.approx(1.5, abs=0.1)
    assert float(samples["bias"].mean()) == pytest.approx(-0.5, abs=0.1)
    assert float(samples["noise"].min()) > 0


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_of_pyro(parallel: bool) -> None:
    class Parallel(Module):
        # A model that Pyro can run in parallel: its shapes broadcast from the left.
        bias = PyroSample(dist.Normal(0.0, 5.0))

        def forward(self, x: Tensor) -> Tensor:
            bias = self.bias
            with pyro.plate("data", len(x)):
                return pyro.sample("y", dist.Normal(bias + x, 0.01))

    prior = Predictive(Parallel(), num_samples=7, parallel=parallel)(X)
    assert prior["y"].shape == (7, 20)
    drawn = {"bias": torch.tensor([[10.0], [20.0], [30.0]])}
    posterior = Predictive(Parallel(), drawn, parallel=parallel)(X)
    assert set(posterior) == {"y"}
    torch.testing.assert_close(posterior["y"], drawn["bias"] + X, rtol=0.0, atol=0.1)


def test_condition_and_do() -> None:
    at = {"slope": torch.tensor(2.0), "bias": torch.tensor(1.0)}
    tr = poutine.trace(poutine.condition(Line(), data=at)).get_trace(X, Y)
    assert set(tr.observation_nodes) == {"slope", "bias", "at_one", "y"}
    assert float(sites(tr)["slope"]) == 2.0
    assert float(sites(tr)["at_one"]) == 3.0

    done = poutine.trace(poutine.do(Line(), data=at)).get_trace(X, Y)
    assert set(done.observation_nodes) == {"at_one", "y"}
    assert float(sites(done)["at_one"]) == 3.0
    assert float(sites(done)["slope"]) != 2.0, "the site is drawn, but what reads it sees 2"


def test_block_hides_sites() -> None:
    tr = poutine.trace(poutine.block(Line(), hide=["slope", "scale"])).get_trace(X, Y)
    assert {"slope", "scale"}.isdisjoint(tr.nodes)
    assert {"bias", "noise", "y"} <= set(tr.nodes)


def test_scale_and_mask() -> None:
    at = {"slope": torch.tensor(2.0), "bias": torch.tensor(1.0), "noise": torch.tensor(1.0)}
    model = poutine.condition(Line(), data=at)

    def total(wrapped: Callable[..., object]) -> Tensor:
        return torch.as_tensor(poutine.trace(wrapped).get_trace(X, Y).log_prob_sum()).detach()

    plain = total(model)
    torch.testing.assert_close(total(poutine.scale(model, scale=3.0)), 3 * plain)
    assert float(total(poutine.mask(model, mask=torch.tensor(False)))) == 0.0


def test_replay_repeats_a_run() -> None:
    model = Line()
    first = poutine.trace(model).get_trace(X)
    again = poutine.trace(poutine.replay(model, trace=first)).get_trace(X)
    assert sites(first).keys() == sites(again).keys()
    assert all(sites(again)[name].equal(value) for name, value in sites(first).items())


def test_lift_makes_parameters_random() -> None:
    lifted = poutine.lift(Line(), prior={"scale": dist.Gamma(2.0, 1.0)})
    tr = poutine.trace(lifted).get_trace(X, Y)
    assert "scale" in tr.stochastic_nodes
    assert not tr.param_nodes
    assert float(sites(tr)["scale"]) > 0


def test_handlers_mean_the_same_inside_apply(key: random.Key) -> None:
    model = Line()
    params = init(model, key)
    at = {"slope": torch.tensor(2.0), "bias": torch.tensor(1.0), "noise": torch.tensor(0.5)}
    theirs = {
        name: torch.as_tensor(
            poutine.trace(wrap(poutine.condition(model, data=at))).get_trace(X, Y).log_prob_sum()
        ).detach()
        for name, wrap in WRAPPERS.items()
    }
    for name, wrap in WRAPPERS.items():
        _, record = trace(wrap(poutine.condition(model, data=at)), params, key, X, Y)
        torch.testing.assert_close(record.log_density, theirs[name])
    assert len({float(density) for density in theirs.values()}) == len(WRAPPERS)

    _, record = trace(poutine.do(model, data=at), params, key, X, Y)
    assert set(record.observed) == {"y"}
    lifted = poutine.lift(model, prior={"scale": dist.Gamma(2.0, 1.0)})
    _, record = trace(lifted, params, key, X, Y)
    assert "scale" in record.latents


WRAPPERS: dict[str, Callable[[Callable[..., object]], Callable[..., object]]] = {
    "plain": lambda model: model,
    "scale": lambda model: poutine.scale(model, scale=3.0),
    "mask": lambda model: poutine.mask(model, mask=torch.arange(20) < 7),
    "block": lambda model: poutine.block(model, hide=["slope"]),
}


def test_seed_decides_the_draws() -> None:
    model = poutine.seed(Line(), rng_seed=3)
    first, second = poutine.trace(model).get_trace(X), poutine.trace(model).get_trace(X)
    assert sites(first)["slope"].equal(sites(second)["slope"])


class Coins(Module):
    """Has a discrete site, to be summed out."""

    p = PyroParam(torch.tensor(0.3), constraint=constraints.unit_interval)
    which = PyroSample(lambda self: dist.Bernoulli(self.p))

    def forward(self, y: Tensor) -> Tensor:
        which = self.which
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(4 * which - 2, 1.0), obs=y)
        return which


def test_enumeration_sums_a_discrete_site_out() -> None:
    y = torch.full((5,), 2.0)

    def guide(y: Tensor) -> None:
        """Has no sites."""

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(config_enumerate(Coins()), guide, y)
    at = [dist.Normal(loc, 1.0).log_prob(y).sum() for loc in (-2.0, 2.0)]
    expected = torch.logsumexp(torch.stack([at[0], at[1]]) + torch.tensor([0.7, 0.3]).log(), 0)
    assert loss == pytest.approx(-float(expected), rel=1e-5)
    found = infer_discrete(config_enumerate(Coins()), first_available_dim=-2)(y)
    assert float(found) == 1.0


def test_params_go_from_pyro_to_us_and_back(key: random.Key) -> None:
    model = Line()
    model(X)
    pyro.get_param_store()["scale"] = torch.tensor(0.25)
    params = unconstrain(model, {"scale": pyro.param("scale").detach()})
    torch.testing.assert_close(params["scale"], torch.tensor(0.25).log())
    values = {"slope": torch.tensor(1.0), "bias": torch.tensor(1.0), "noise": torch.tensor(1.0)}
    tr = poutine.trace(poutine.condition(model, data=values)).get_trace(X, Y)
    torch.testing.assert_close(
        log_density(model, params, values, X, Y),
        torch.as_tensor(tr.log_prob_sum()).detach(),
    )


def test_a_plain_run_inside_apply_is_part_of_it(key: random.Key) -> None:
    # A Pyro function that calls a Module: the run is the function's.
    line = Line()

    def model(x: Tensor) -> Tensor:
        return line(x) + pyro.sample("extra", dist.Normal(0.0, 1.0))

    params = init(model, key, X)
    assert set(params) == {"scale"}
    _, record = trace(model, params, key, X)
    assert set(record.latents) == LATENT | {"extra", "y"}
    assert apply(model, params, key, X).shape == (20,)
