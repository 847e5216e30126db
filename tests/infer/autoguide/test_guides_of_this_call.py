"""Supports, masks and rows of a guide are those of the call; its start is what one asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor, nn

from purepyro import Ensemble, Module, PyroParam, apply, init, jit, lift, random
from purepyro._errors import (
    DeclarationError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    UnsupportedDistributionError,
)
from purepyro.infer import (
    SVI,
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    Predictive,
    Trace_ELBO,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_uniform,
    init_to_value,
)

Make = Callable[[Callable[..., object]], AutoGuide[...]]
NORMALS: list[Make] = [
    AutoNormal,
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoLowRankMultivariateNormal,
]
POINTS: list[Make] = [AutoDelta, AutoLaplaceApproximation]
UNIT = torch.linspace(0.0, 1.0, 5)


def between(x: Tensor) -> None:
    """A support that data bound."""
    centre = pyro.sample("c", dist.Uniform(x.min(), x.max()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(centre, torch.ones_like(centre)), obs=x)


class Width(Module):
    """A support that a parameter bounds."""

    width = PyroParam(torch.tensor(3.0))

    def forward(self, y: Tensor) -> None:
        u = pyro.sample("u", dist.Uniform(0.0, self.width))
        pyro.sample("y", dist.Normal(u, 1.0), obs=y)


def by_row(i: Tensor, high: Tensor, y: Tensor) -> None:
    """Rows with bounds of their own; the caller says which."""
    with pyro.plate("rows", len(high), subsample=i):
        u = pyro.sample("u", dist.Uniform(0.0, high[i]))
        pyro.sample("y", dist.Normal(u, 1.0), obs=y[i])


# ---------------------------------------------------------------------------------------- supports


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [*NORMALS, *POINTS])
def test_bounds_from_data(key: random.Key, make: Make, dtype: torch.dtype) -> None:
    guide, x = make(between), UNIT.to(dtype)
    params = init(make(between), key, x)
    params["locs.c"] = torch.zeros_like(params["locs.c"])  # the middle; AutoDelta's too
    torch.testing.assert_close(guide.median(params, x)["c"], x.new_tensor(0.5))
    torch.testing.assert_close(guide.median(params, 10 * x)["c"], x.new_tensor(5.0))
    draw = guide.sample_posterior(params, key, 100 + x)["c"]
    assert bool((draw > 100) & (draw < 101))
    both = torch.vmap(lambda x: guide.median(params, x)["c"])(torch.stack([x, 10 * x]))
    torch.testing.assert_close(both, x.new_tensor([0.5, 5.0]))
    drawn = Predictive(between, guide=guide, params=params, num_samples=3, return_sites=["c"])
    assert bool((drawn(key, 100 + x)["c"] > 100).all())


@pytest.mark.compiled
def test_bounds_from_data_are_inputs_of_a_graph(key: random.Key) -> None:
    guide = AutoNormal(between)  # whose first look is in the trace
    params = init(AutoNormal(between), key, UNIT)
    draw = jit(lambda x: guide.sample_posterior(params, key, x)["c"])
    for x in (UNIT, 10 * UNIT):
        torch.testing.assert_close(
            draw(x), AutoNormal(between).sample_posterior(params, key, x)["c"]
        )


@pytest.mark.parametrize("make", NORMALS)
def test_bounds_from_a_parameter(key: random.Key, make: Make) -> None:
    model, y = Width(), torch.tensor(1.0)
    guide = make(model)
    params = {**init(model, key), **init(guide, key, y)}
    for width in (3.0, 6.0):
        params["width"] = torch.tensor(width)
        torch.testing.assert_close(guide.median(params, y)["u"], torch.tensor(width / 2))
        assert set(apply(guide, params, key, y)) == {"u"}

    def loss(width: Tensor) -> Tensor:
        return Trace_ELBO().loss(model, guide, {**params, "width": width}, key, y)

    slope = torch.func.grad(loss)(torch.tensor(3.0))
    rise = (loss(torch.tensor(3.01)) - loss(torch.tensor(2.99))) / 0.02
    torch.testing.assert_close(slope, rise, rtol=1e-2, atol=1e-3)  # of float32 differences


def test_a_parameter_that_bounds_must_be_given(key: random.Key) -> None:
    y = torch.tensor(1.0)
    guide = AutoNormal(Width())
    with pytest.raises(MissingNameError, match=r"no 'width'.*parameters of model and guide"):
        guide.median(init(guide, key, y), y)


def test_a_parameter_that_bounds_nothing_need_not_be_given(key: random.Key) -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0))
        pyro.sample("x", dist.Normal(pyro.sample("c", dist.Uniform(x, x + 1)), scale), obs=x)

    guide, x = AutoNormal(model), torch.tensor(4.0)
    torch.testing.assert_close(guide.median(init(guide, key, x), x)["c"], torch.tensor(4.5))


@pytest.mark.parametrize("make", [AutoNormal, AutoDelta])
def test_bounds_by_row(key: random.Key, make: Make) -> None:
    high, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.2, 1.0, 2.0, 0.5])
    guide = make(by_row)
    params = init(guide, key, torch.tensor([0, 2]), high, y)
    assert params["locs.u"].shape == (4,)
    params["locs.u"] = torch.tensor([0.0, 0.0, 0.0, math.log(3.0)])
    for rows, middles in (
        ([0, 2], [0.5, 1.5]),
        ([3, 1], [3.0, 1.0]),
        ([3, 0, 1, 2], [3, 0.5, 1, 1.5]),
    ):
        found = guide.median(params, torch.tensor(rows), high, y)["u"]
        torch.testing.assert_close(found, torch.tensor(middles))
    svi = SVI(by_row, guide, torchopt.adam(0.1))
    state = svi.init(key, torch.tensor([0, 2]), high, y)
    after, _ = svi.step(state, torch.tensor([3, 1]), high, y)
    moved = after.params["locs.u"] != state.params["locs.u"]
    assert moved.tolist() == [False, True, False, True]


def test_rows_that_nobody_knows_have_no_quantiles(key: random.Key) -> None:
    def model(high: Tensor) -> None:
        with pyro.plate("rows", 4, subsample_size=2) as i:
            pyro.sample("u", dist.Uniform(0.0, high[i]))

    high = torch.tensor([1.0, 2.0, 3.0, 4.0])
    guide = AutoNormal(model)
    params = init(guide, key, high)
    assert apply(guide, params, key, high)["u"].shape == (2,)
    assert Trace_ELBO().loss(model, guide, params, key, high).isfinite()
    with pytest.raises(DeclarationError, match="rows that nobody knows"):
        guide.median(params, high)


@pytest.mark.parametrize("make", [AutoNormal, AutoDelta])
def test_one_bound_for_all_rows_of_a_subsampled_plate(key: random.Key, make: Make) -> None:
    def model() -> None:
        with pyro.plate("rows", 4, subsample_size=2):
            pyro.sample("u", dist.Uniform(0.0, 3.0))

    guide = make(model)
    params = {n: torch.zeros_like(p) for n, p in init(guide, key).items()}
    torch.testing.assert_close(guide.median(params)["u"], torch.full((4,), 1.5))


def test_bounds_in_an_ensemble(key: random.Key) -> None:
    ensemble = Ensemble(SVI(between, AutoNormal(between), torchopt.adam(0.1)))
    state = ensemble.init(random.split(key, 2), UNIT)
    _, losses = ensemble.step(state, 10 * UNIT)
    for member in range(2):
        svi = SVI(between, AutoNormal(between), torchopt.adam(0.1))
        one = svi.init(random.Key(random.split(key, 2)[member]), UNIT)
        torch.testing.assert_close(losses[member], svi.step(one, 10 * UNIT)[1])


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_models_with_fixed_supports_run_once_a_step(key: random.Key) -> None:
    runs = 0

    def model() -> None:
        nonlocal runs
        runs += 1
        pyro.sample("u", dist.Uniform(0.0, 1.0))
        pyro.sample("z", dist.Gamma(torch.tensor(2.0), 1.0))

    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    state = svi.init(key)
    before = runs
    svi.step(state)
    assert runs == before + 1


# ------------------------------------------------------------------------------------------- masks

MASK = torch.tensor([True, True, False, False])
Y = torch.tensor([0.5, -1.0, 2.0, 9.0])


def partly_observed(y: Tensor, mask: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 4):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y, obs_mask=mask)


def left_out(y: Tensor, mask: Tensor) -> None:
    with pyro.plate("rows", 4), poutine.mask(mask=mask):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def evidence(model: Callable[..., object]) -> Tensor:
    """The log density of the observed rows."""
    rows = Y[MASK]
    if model is left_out:
        return dist.Normal(0.0, 2.0**0.5).log_prob(rows).sum()
    shared = torch.ones(len(rows), len(rows)) + torch.eye(len(rows))
    return dist.MultivariateNormal(torch.zeros(len(rows)), shared).log_prob(rows)


@pytest.mark.parametrize("model", [partly_observed, left_out])
@pytest.mark.parametrize("make", [*NORMALS, AutoIAFNormal])
def test_masked_elements_leave_the_bound_a_bound(
    key: random.Key, make: Make, model: Callable[..., object]
) -> None:
    guide = make(model)
    params = init(guide, key, Y, MASK)
    loss = Trace_ELBO(num_particles=2_000)
    for name in [n for n in params if "scale" in n]:
        params[name] = params[name] + 30.0  # as a fit without masks would
    wide = loss.loss(model, guide, params, key, Y, MASK)
    # 2,000 draws; the wide laws' standard error is far below their distance from the evidence.
    assert wide >= -evidence(model)


def test_a_fit_with_a_mask_finds_the_evidence(key: random.Key) -> None:
    svi = SVI(left_out, AutoNormal(left_out), torchopt.adam(0.05))
    state, _ = svi.run(key, 400, Y, MASK)
    found = attrs_evolved(svi, 1_000).evaluate(state, Y, MASK)
    # The guide has the true posterior; 1,000 draws, what is left is the fit's own noise.
    torch.testing.assert_close(found, -evidence(left_out), rtol=0.0, atol=0.05)
    assert bool((state.params["locs.z"][~MASK] == 0).all())


def attrs_evolved(svi: SVI[...], particles: int) -> SVI[...]:
    """The same with more particles."""
    return SVI(svi.model, svi.guide, svi.optim, Trace_ELBO(num_particles=particles))


def test_a_masked_prior_whose_value_counts_is_flat(key: random.Key) -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("y", dist.Normal(z, 0.1), obs=torch.tensor(2.0))

    params = {"locs.z": torch.tensor(2.0), "scales.z": torch.tensor(math.log(math.expm1(0.1)))}
    loss = Trace_ELBO(num_particles=10).loss(model, AutoNormal(model), params, key)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-5, rtol=0.0)  # the exact posterior


def test_a_mask_in_a_laplace_approximation(key: random.Key) -> None:
    guide = AutoLaplaceApproximation(left_out, init_to_feasible)
    params = {"locs.z": torch.where(MASK, Y / 2, 0.0)}
    normal, found = guide.laplace_approximation(params, Y, MASK)
    loss = Trace_ELBO(num_particles=10).loss(left_out, normal, found, key, Y, MASK)
    torch.testing.assert_close(loss, -evidence(left_out))


def test_a_scaled_prior_is_a_bound_on_the_scaled_density(key: random.Key) -> None:
    def model() -> None:
        with poutine.scale(scale=4.0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    z = torch.linspace(-6.0, 6.0, 10_001)
    density = 4 * dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(
        torch.tensor(1.0)
    )
    exact = density.logsumexp(0) + math.log(12.0 / 10_000)
    sd = math.log(math.expm1(5**-0.5))
    params = {"locs.z": torch.tensor(0.2), "scales.z": torch.tensor(sd)}
    loss = Trace_ELBO(num_particles=10).loss(model, AutoNormal(model), params, key)
    torch.testing.assert_close(loss, -exact, atol=1e-4, rtol=0.0)


# ------------------------------------------------------------------------------------------- start


def pair() -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("zed", dist.Normal(loc, 1.0))


def test_values_that_match_no_site(key: random.Key) -> None:
    one = torch.tensor(1.0)
    with pytest.raises(UnknownNameError, match=r"'zde'.*Did you mean 'zed'"):
        init(AutoNormal(pair, init_to_value(values={"zde": one})), key)
    with pytest.raises(UnknownNameError, match="'zde'"):
        init(AutoNormal(pair, init_to_mean(fallback=init_to_value(values={"zde": one}))), key)
    centred = poutine.reparam(pair, {"zed": LocScaleReparam(0.0)})
    with pytest.raises(UnknownNameError, match="made from 'zed_decentered'"):
        init(AutoNormal(centred, init_to_value(values={"zed": one})), key)
    found = init(AutoNormal(centred, init_to_value(values={"zed_decentered": one})), key)
    assert found["locs.zed_decentered"] == 1.0


def test_values_for_the_parts_of_a_list(key: random.Key) -> None:
    start = init_to_value(values={"loc": torch.tensor(1.0), "zed": torch.tensor(2.0)})
    guide = AutoGuideList(
        [
            AutoNormal(poutine.block(pair, hide=["loc"]), start),
            AutoDelta(poutine.block(pair, expose=["loc"]), start),
        ]
    )
    found = init(guide, key)
    assert found["parts.0.locs.zed"] == 2.0
    assert found["parts.1.locs.loc"] == 1.0


def test_the_median_of_independent_elements(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("w", dist.Normal(5.0, 0.1).expand([3, 2]).to_event(2))
        pyro.sample("v", dist.MultivariateNormal(torch.ones(2), torch.eye(2)))

    found = init(AutoNormal(model, init_to_median), key)
    assert bool((found["locs.w"] - 5.0).abs().max() < 0.2)  # 15 draws: 4 standard errors are 0.13
    assert bool((found["locs.v"] == 0).all())


class Net(Module):
    """A network with priors on all weights."""

    net: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor, y: Tensor) -> None:
        mean = self.net(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("make", [AutoDelta, AutoLaplaceApproximation])
def test_a_network_leaves_its_start(
    key: random.Key,
    make: Callable[..., AutoGuide[Tensor, Tensor]],
    activation: Callable[[], nn.Module],
) -> None:
    x = torch.linspace(-2.0, 2.0, 30).unsqueeze(-1)
    y = torch.sin(2 * x).squeeze(-1)
    net = nn.Sequential(nn.Linear(1, 8), activation(), nn.Linear(8, 1))
    model = Net(net=lift(net, dist.Normal(0.0, 1.0)))
    svi = SVI(model, make(model), torchopt.adam(0.05))
    state = svi.init(key, x, y)
    after, _ = svi.step(state, x, y)
    assert all(bool((after.params[n] != p).any()) for n, p in state.params.items())
    stuck = SVI(model, make(model, init_to_feasible), torchopt.adam(0.05))
    with pytest.warns(
        UserWarning, match=r"saddle.*'locs.net.0.weight'.*init_loc_fn=init_to_sample"
    ):
        stuck.init(key, x, y)
    ensemble: Ensemble[Tensor, Tensor] = Ensemble(stuck)
    with pytest.warns(UserWarning, match=r"in an ensemble.*members differ"):
        ensemble.init(random.split(key, 2), x, y)


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_a_start_at_the_mode_is_no_saddle(key: random.Key) -> None:
    for make in (AutoDelta, AutoLaplaceApproximation):
        SVI(pair, make(pair, init_to_feasible), torchopt.adam(0.1)).init(key)  # a warning: an error


# ------------------------------------------------------------------------------ NaN, improper, Pyro


def test_nan_that_is_legal(key: random.Key) -> None:
    y = torch.tensor([1.0, torch.nan, 3.0])

    def of_distribution(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.NanMaskedNormal(z, 1.0), obs=y)

    def under_mask(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)), poutine.mask(mask=~y.isnan()):
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def rest(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 2):
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[~y.isnan()])

    def params(model: Callable[[Tensor], None]) -> dict[str, Tensor]:
        svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        return svi.step(svi.init(key, y), y)[0].params

    expected = params(rest)
    for model in (of_distribution, under_mask):
        torch.testing.assert_close(params(model), expected)


def improper(y: Tensor) -> None:
    z = pyro.sample("z", dist.ImproperUniform(constraints.positive, (), ()))
    v = pyro.sample("v", dist.ImproperUniform(constraints.real, (), (2,)))
    with pyro.plate("rows", 2):
        w = pyro.sample("w", dist.ImproperUniform(constraints.real, (), ()))
    pyro.sample("y", dist.Normal(z + v.sum() + w.sum(), 1.0), obs=y)


@pytest.mark.parametrize("start", [init_to_feasible, init_to_median, init_to_mean, init_to_uniform])
def test_improper_priors(key: random.Key, start: Callable[..., Tensor]) -> None:
    y = torch.tensor(2.0)
    for make in (AutoNormal, AutoDelta, AutoMultivariateNormal):
        guide = make(improper, init_to_value(values={"z": y}, fallback=start))
        state = SVI(improper, guide, torchopt.adam(0.1)).init(key, y)
        torch.testing.assert_close(guide.median(state.params, y)["z"], y)

    def by_hand(y: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("z", dist.LogNormal(loc, 1.0))
        pyro.sample("v", dist.Normal(loc, 1.0).expand([2]).to_event(1))
        with pyro.plate("rows", 2):
            pyro.sample("w", dist.Normal(loc, 1.0))

    svi = SVI(improper, by_hand, torchopt.adam(0.1))
    assert svi.step(svi.init(key, y), y)[1].isfinite()
    with pytest.raises(UnsupportedDistributionError, match=r"'z'.*ImproperUniform"):
        Predictive(improper, num_samples=2)(key, y)


@pytest.mark.parametrize("make", [*NORMALS, AutoIAFNormal])
def test_joint_guides_under_vectorized_particles_of_pyro(key: random.Key, make: Make) -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("rows", 2):
            z = pyro.sample("z", dist.LogNormal(loc, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    y, guide = torch.tensor([1.0, 2.0]), make(model)
    pyro.set_rng_seed(0)
    theirs = pyro.infer.Trace_ELBO(2_000, vectorize_particles=True, max_plate_nesting=1)
    found = theirs.loss(model, guide, y)
    params = {n: p.detach() for n, p in pyro.get_param_store()._params.items()}
    ours = Trace_ELBO(num_particles=2_000).loss(model, guide, params, key, y)
    # 2,000 draws each, of a standard deviation of about 2: 4 standard errors are 0.25.
    assert abs(found - ours.item()) < 0.25


def test_a_plate_around_a_joint_guide_where_the_model_has_one() -> None:
    guide = AutoMultivariateNormal(left_out)
    theirs = pyro.infer.Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=0)
    with pytest.raises(ShapeError, match=r"float32\[3, 4\].*max_plate_nesting to 1 or more"):
        theirs.loss(left_out, guide, Y, MASK)


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoMultivariateNormal", "AutoGaussian"])
def test_a_refused_run_leaves_a_guide_of_pyro_as_it_was(key: random.Key, kind: str) -> None:
    y = torch.tensor(1.0)

    def model(y: Tensor) -> None:
        pyro.sample("y", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=y)

    guide = getattr(autoguide, kind)(model)
    before = _state_of(guide)
    for run in (guide, lambda y: guide(y)):
        with pytest.raises(DeclarationError, match="Call it once outside"):
            init(run, key, y)
    assert _state_of(guide) == before
    guide(y)  # the way out
    assert init(guide, key, y)


def _state_of(guide: object) -> dict[str, str]:
    """All that a guide holds, as text."""
    return {name: repr(value) for name, value in vars(guide).items()}
