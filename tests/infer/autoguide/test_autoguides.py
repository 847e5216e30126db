"""What is particular to single guides: fits of known posteriors, starts, lists, flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type, cast

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.distributions import transforms
from torch import Tensor

from purepyro import Module, PyroParam, apply, constrain, init, random, trace
from purepyro._errors import (
    DeclarationError,
    DtypeError,
    DuplicateSiteError,
    MissingNameError,
    ShapeError,
    SupportError,
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
    AutoNormalizingFlow,
    InitSite,
    Predictive,
    Trace_ELBO,
    init_to_feasible,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)

Start = Callable[[InitSite, random.Key], Tensor]

NOISE = 0.5


def line(x: Tensor, y: Tensor | None = None) -> None:
    """A conjugate regression: two correlated coefficients, known noise."""
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, NOISE), obs=y)


def line_data() -> tuple[Tensor, Tensor]:
    x = random.normal(random.key(1), 20, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    return x, x @ torch.tensor([1.0, -1.0]) + NOISE * random.normal(random.key(2), 20)


def exact() -> tuple[Tensor, Tensor]:
    """Mean and covariance of the posterior."""
    x, y = line_data()
    precision = x.mT @ x / NOISE**2 + torch.eye(2)
    covariance = precision.inverse()
    return covariance @ x.mT @ y / NOISE**2, covariance


def three(y: Tensor) -> None:
    """The normal-normal model with a known posterior."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


# ---------------------------------------------------------------------------------------- the fits


FULL: dict[str, AutoGuide[...]] = {
    "full": AutoMultivariateNormal(line),
    "low rank": AutoLowRankMultivariateNormal(line),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FULL)
def test_a_full_covariance_reaches_the_exact_posterior(kind: str, key: random.Key) -> None:
    guide = FULL[kind]
    svi = SVI(line, guide, torchopt.adam(0.02), Trace_ELBO(num_particles=16))
    params = svi.run(key, 1200, *line_data()).state.params
    mean, covariance = exact()
    sd = covariance.diagonal().sqrt()
    upper = guide.quantiles(params, [0.5, 0.8413447], *line_data())["w"]
    # Stochastic steps: 0.2 posterior deviations for the mean, 15 % for the deviations.
    assert bool(((upper[0] - mean).abs() < 0.2 * sd).all())
    torch.testing.assert_close(upper[1] - upper[0], sd, rtol=0.15, atol=0.0)


def test_the_laplace_approximation_of_a_normal_posterior_is_exact(key: random.Key) -> None:
    guide, data = AutoLaplaceApproximation(line), line_data()
    svi = SVI(line, guide, torchopt.adam(0.05))
    params = svi.run(key, 800, *data).state.params
    mean, covariance = exact()
    normal, fitted = guide.laplace_approximation(params, *data)
    torch.testing.assert_close(normal.median(fitted, *data)["w"], mean, rtol=0.0, atol=1e-3)
    constrained = constrain(normal, fitted, *data)
    tril = constrained["auto_scale"].unsqueeze(-1) * constrained["auto_scale_tril"]
    torch.testing.assert_close(tril @ tril.mT, covariance, rtol=1e-3, atol=1e-5)
    drawn = Predictive(line, guide=normal, params=fitted, num_samples=7, return_sites=["w", "y"])
    assert drawn(key, data[0][:3])["y"].shape == (7, 3)


def test_normal_normal(key: random.Key) -> None:
    data = torch.tensor([0.5, 1.0, 3.0])
    guide = AutoLaplaceApproximation(three, init_to_value(values={"loc": data.sum() / 4}))
    params = init(guide, key, data)
    normal, fitted = guide.laplace_approximation(params, data)
    found = normal.quantiles(fitted, [0.5, 0.8413447], data)["loc"]
    torch.testing.assert_close(found, data.sum() / 4 + torch.tensor([0.0, 0.5]))
    # The exact posterior makes the bound tight at every draw: minus the log evidence.
    evidence = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + torch.ones(3, 3))
    loss = Trace_ELBO().loss(three, normal, fitted, key, data)
    torch.testing.assert_close(loss, -evidence.log_prob(data))


def test_laplace_where_there_is_no_maximum(key: random.Key) -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("up", 2 * z**2)

    guide = AutoLaplaceApproximation(model)
    with pytest.raises(SupportError, match=r"not curved downwards in all of the 1 directions"):
        guide.laplace_approximation(init(guide, key))


def test_a_delta_fit_is_the_maximum_of_the_constrained_density(key: random.Key) -> None:
    """Coin of the Pyro tutorial: 6 heads, 4 tails, Beta(10, 10): the mode is 15 / 28."""

    def coin(heads: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(10.0, 10.0))
        with pyro.plate("data", len(heads)):
            pyro.sample("heads", dist.Bernoulli(p), obs=heads)

    heads, guide = torch.tensor([1.0] * 6 + [0.0] * 4), AutoDelta(coin)
    result = SVI(coin, guide, torchopt.adam(0.05)).run(key, 300, heads)
    found = constrain(guide, result.state.params, heads)["locs.p"]
    torch.testing.assert_close(found, torch.tensor(15 / 28), rtol=0.0, atol=1e-3)


# --------------------------------------------------------------------------------- where to start


def hierarchy() -> None:
    scale = pyro.sample("scale", dist.Gamma(6.0, 2.0))
    pyro.sample("loc", dist.Normal(10.0, scale))


def test_starts_see_the_starts_before_them(key: random.Key) -> None:
    seen: dict[str, Tensor] = {}

    def start(site: InitSite, key: random.Key) -> Tensor:
        if site.name == "loc":
            seen["sd"] = site.fn.variance.sqrt()
        return torch.tensor(5.0)

    params = constrain(AutoDelta(hierarchy), init(AutoDelta(hierarchy, start), key))
    assert params == {"locs.scale": torch.tensor(5.0), "locs.loc": torch.tensor(5.0)}
    assert seen["sd"] == 5.0


@pytest.mark.parametrize(
    ("start", "scale", "loc"),
    [
        (init_to_feasible, 1.0, 0.0),
        (init_to_mean, 3.0, 10.0),
        (init_to_mean(fallback=None), 3.0, 10.0),
        (init_to_value(values={"scale": torch.tensor(2.0)}, fallback=init_to_mean), 2.0, 10.0),
    ],
)
def test_starts_in_closed_form(start: Start, scale: float, loc: float, key: random.Key) -> None:
    values = AutoDelta(hierarchy).median(init(AutoDelta(hierarchy, start), key))
    torch.testing.assert_close(values["scale"], torch.tensor(scale))
    torch.testing.assert_close(values["loc"], torch.tensor(loc))


def test_the_median_start(key: random.Key) -> None:
    guide = AutoDelta(hierarchy, init_to_median(num_samples=2001))
    values = guide.median(init(guide, key))
    # 2001 draws of Gamma(6, 2), whose median is 2.835: a standard error of about 0.03.
    assert abs(values["scale"].item() - 2.835) < 0.12
    assert abs(values["loc"].item() - 10.0) < 0.4


def test_a_start_without_a_mean_falls_back(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("z", dist.Cauchy(3.0, 1.0))

    guide = AutoDelta(model, init_to_mean(fallback=init_to_feasible))
    assert guide.median(init(guide, key)) == {"z": torch.tensor(0.0)}
    with pytest.raises(MissingNameError, match=r"latent site 'z' \(Cauchy\) has no mean or"):
        init(AutoDelta(model, init_to_mean(fallback=None)), key)


@pytest.mark.parametrize("start", [init_to_sample, init_to_uniform, init_to_uniform(radius=0.5)])
def test_random_starts_are_keyed(start: Start, key: random.Key) -> None:
    guide = AutoNormal(hierarchy, start)
    once, again = init(guide, key), init(guide, key)
    other = init(guide, random.key(1))
    for path in ("locs.scale", "locs.loc"):
        assert torch.equal(once[path], again[path])
        assert not torch.equal(once[path], other[path])
    stacked = torch.vmap(lambda key: init(guide, key), out_dims=0)(random.split(key, 3))
    assert len(set(stacked["locs.loc"].tolist())) == 3
    # A site's start depends on the key and its name alone, whichever guide asks.
    assert torch.equal(
        init(AutoDiagonalNormal(hierarchy, start), key)["locs.loc"], once["locs.loc"]
    )


def test_a_uniform_start_is_within_its_radius(key: random.Key) -> None:
    guide = AutoNormal(hierarchy, init_to_uniform(radius=0.5))
    found = torch.vmap(lambda key: init(guide, key)["locs.loc"])(random.split(key, 200))
    assert 0.45 < found.abs().max().item() <= 0.5


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (torch.tensor(-1.0), SupportError, r"'scale' .* outside the support GreaterThan"),
        (torch.tensor(torch.nan), SupportError, r"'scale' .* outside the support"),
        (torch.tensor(torch.inf), SupportError, r"'scale' .* is not finite, there or in"),
        (torch.tensor(0.0), SupportError, r"'scale' .* is not finite, there or in"),
        (torch.ones(2), ShapeError, r"'scale' from is float32\[2\], but the site has the shape"),
        (1.0, DtypeError, r"'scale' from is 1\.0, which is no Tensor"),
    ],
)
def test_a_start_that_is_no_value_of_its_site(
    value: Tensor, error: type[Exception], match: str, key: random.Key
) -> None:
    guide = AutoNormal(hierarchy, init_to_value(values={"scale": value}))
    with pytest.raises(error, match=match):
        init(guide, key)


def test_no_key_is_used_twice(key: random.Key) -> None:
    guide = AutoLowRankMultivariateNormal(hierarchy, init_to_median(num_samples=5))
    with random.forbid_reuse():
        params = init(guide, key)
        guide.sample_posterior(params, random.key(1))


def test_a_site_without_a_start(key: random.Key) -> None:
    start = init_to_value(values={"sacle": torch.tensor(1.0)}, fallback=None)
    with pytest.raises(MissingNameError, match=r"'scale', and no fallback. Did you mean 'sacle'"):
        init(AutoNormal(hierarchy, start), key)


def test_starts_in_subsampled_plates_are_repeated(key: random.Key) -> None:
    def model() -> None:
        with pyro.plate("rows", 5, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    found = init(AutoNormal(model, init_to_sample), key)["locs.z"]
    assert torch.equal(found, torch.stack([found[0], found[1], found[0], found[1], found[0]]))


# ------------------------------------------------------------------------------------------- flows


@pytest.mark.parametrize(
    "build",
    [
        transforms.planar,
        transforms.radial,
        lambda size: transforms.iterated(2, transforms.affine_autoregressive, size),
        lambda size: transforms.AffineTransform(torch.zeros(size), 0.05, event_dim=1),
    ],
)
def test_flows_of_all_kinds_train(
    build: Callable[[int], transforms.Transform], key: random.Key
) -> None:
    guide, data = AutoNormalizingFlow(line, init_transform_fn=build), line_data()
    svi = SVI(line, guide, torchopt.adam(0.01))
    result = svi.run(key, 150, *data)
    assert result.losses[-20:].mean() < result.losses[:20].mean()


def test_a_flow_starts_from_the_key_and_its_structure_does_not(key: random.Key) -> None:
    guide, data = AutoIAFNormal(line), line_data()
    one, two = init(guide, key, *data), init(guide, random.key(1), *data)
    assert not all(torch.equal(one[path], two[path]) for path in one)
    drawn = apply(guide, one, key, *data)["w"]
    assert torch.equal(drawn, apply(AutoIAFNormal(line), one, key, *data)["w"])


def test_a_fresh_flow_may_first_run_inside_a_transform(key: random.Key) -> None:
    params = init(AutoIAFNormal(line), key, *line_data())
    fresh = AutoIAFNormal(line)

    def loss(params: dict[str, Tensor]) -> Tensor:
        return Trace_ELBO().loss(line, fresh, params, key, *line_data())

    inside = torch.func.grad(loss)(params)
    for path, gradient in torch.func.grad(loss)(params).items():
        assert torch.equal(inside[path], gradient)
    assert torch.isfinite(loss(params))


def test_a_flow_has_the_dtype_of_the_model(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))

    guide = AutoIAFNormal(model)
    params = init(guide, key)
    assert {value.dtype for value in params.values()} == {torch.float64}
    assert apply(guide, params, key)["z"].dtype == torch.float64


def test_what_is_no_transform_is_refused(key: random.Key) -> None:
    build = cast("Callable[[int], transforms.Transform]", int)
    guide = AutoNormalizingFlow(line, init_transform_fn=build)
    with pytest.raises(DeclarationError, match=r"transform of AutoNormalizingFlow is 2, which is"):
        init(guide, key, *line_data())


# ------------------------------------------------------------------------------------------- lists


def halves(data: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(data), subsample_size=2) as index:
        local = pyro.sample("local", dist.Normal(loc, scale))
        other = pyro.sample("other", dist.Normal(loc, scale))
        pyro.sample("obs", dist.Normal(local + other, 1.0), obs=data[index])


class Global(Module):
    """A guide by hand."""

    shift = PyroParam(torch.tensor(0.3))

    def forward(self, data: Tensor) -> dict[str, Tensor]:
        return {"loc": pyro.sample("loc", dist.Normal(self.shift, 0.1))}


def parts() -> AutoGuideList[[Tensor]]:
    return AutoGuideList(
        [
            AutoDelta(poutine.block(halves, expose=["scale"])),
            Global(),
            AutoNormal(poutine.block(halves, expose=["local"])),
            AutoNormal(poutine.block(halves, expose=["other"])),
        ]
    )


def test_a_list_is_one_guide(key: random.Key) -> None:
    guide, data = parts(), torch.arange(6.0)
    params = init(guide, key, data)
    assert sorted(params) == [
        "parts.0.locs.scale",
        "parts.1.shift",
        "parts.2.locs.local",
        "parts.2.scales.local",
        "parts.3.locs.other",
        "parts.3.scales.other",
    ]
    values, record = trace(guide, params, key, data)
    assert set(values) == {"scale", "loc", "local", "other"}
    assert record.latents["rows"].shape == (2,)  # drawn once, for both parts
    svi = SVI(halves, guide, torchopt.adam(0.05))
    result = svi.run(key, 100, data)
    assert result.losses[-20:].mean() < result.losses[:20].mean()


def test_joint_guides_in_a_list_do_not_meet(key: random.Key) -> None:
    guide = AutoGuideList(
        [
            AutoMultivariateNormal(poutine.block(hierarchy, expose=["loc"])),
            AutoMultivariateNormal(poutine.block(hierarchy, expose=["scale"])),
        ]
    )
    params = init(guide, key)
    assert "parts.1.auto_scale" in params
    latents = trace(guide, params, key)[1].latents
    assert {"parts.0._auto_latent", "parts.1._auto_latent"} < set(latents)
    assert guide.median(params) == {"loc": torch.tensor(0.0), "scale": torch.tensor(1.0)}


def test_a_guide_has_the_signature_of_its_model(key: random.Key) -> None:
    guide, (x, y) = AutoGuideList([AutoNormal(line)]), line_data()
    params = init(guide, key, x, y=y)
    assert_type(guide.median(params, x, y=y), dict[str, Tensor])
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        cast("AutoGuide[[]]", guide).median(params)


def test_two_parts_with_one_site(key: random.Key) -> None:
    guide = AutoGuideList([AutoDelta(hierarchy), AutoNormal(hierarchy)])
    with pytest.raises(DuplicateSiteError, match="'scale'"):
        init(guide, key)


def test_a_part_without_medians(key: random.Key) -> None:
    guide, data = parts(), torch.arange(6.0)
    with pytest.raises(DeclarationError, match="Part 1 of the AutoGuideList is a Global"):
        guide.median(init(guide, key, data), data)
