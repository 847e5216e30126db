"""The contract of all guides: one line in ``GUIDES`` puts a guide under every test here."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Protocol

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import autoguide
from torch import Tensor

from models import regression, regression_data
from purepyro import Module, apply, constrain, init, log_density, random, trace
from purepyro._errors import DeclarationError, MissingNameError, ShapeError, SupportError
from purepyro.infer import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    Trace_ELBO,
)

Model = Callable[..., object]


def pair() -> None:
    """Two numbers, one of them positive."""
    loc = pyro.sample("loc", dist.Normal(1.0, 2.0))
    pyro.sample("scale", dist.LogNormal(0.1 * loc, 1.0))


def supports() -> None:
    """Constrained supports, a simplex, plates."""
    top = pyro.sample("top", dist.Gamma(2.0, 1.0))
    pyro.sample("unit", dist.Beta(2.0, 3.0))
    pyro.sample("simplex", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
    with pyro.plate("rows", 2, dim=-1):
        pyro.sample("local", dist.Normal(top, 1.0))
        pyro.sample("vector", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))


MODELS: dict[str, tuple[Model, tuple[Tensor, ...]]] = {
    "pair": (pair, ()),
    "supports": (supports, ()),
    "regression": (regression(), regression_data()),
}
GUIDES: dict[str, Callable[[Model], AutoGuide[...]]] = {
    "AutoDelta": AutoDelta,
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": AutoLowRankMultivariateNormal,
    "AutoLaplaceApproximation": AutoLaplaceApproximation,
    "AutoIAFNormal": AutoIAFNormal,
}
JOINT = sorted(set(GUIDES) - {"AutoDelta", "AutoNormal"})

every_guide = pytest.mark.parametrize("kind", GUIDES)
every_joint_guide = pytest.mark.parametrize("kind", JOINT)
every_model = pytest.mark.parametrize("name", MODELS)


def moved(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters away from their start, where nothing is zero or one."""
    key = random.key(99)
    return {
        name: value + 0.2 * random.normal(random.name_key(key, name), *value.shape)
        for name, value in params.items()
    }


@every_guide
@every_model
def test_parameters_are_complete_before_any_step(kind: str, name: str, key: random.Key) -> None:
    (model, args), other = MODELS[name], random.key(1)
    params = init(GUIDES[kind](model), key, *args)
    assert any(path.startswith("locs.") for path in params)
    # A fresh guide runs on them: nothing is remembered but the params.
    values = apply(GUIDES[kind](model), params, other, *args)
    assert set(values) == set(trace(model, _own(model), other, *args)[1].latents)


@every_guide
@every_model
def test_draws_lie_in_the_support(kind: str, name: str, key: random.Key) -> None:
    model, args = MODELS[name]
    guide = GUIDES[kind](model)
    values = apply(guide, moved(init(guide, key, *args)), key, *args)
    assert bool(torch.isfinite(log_density(model, _own(model), values, *args)))


@every_guide
@every_model
def test_the_density_is_that_of_pyros_guide(kind: str, name: str, key: random.Key) -> None:
    model, args = MODELS[name]
    guide = GUIDES[kind](model)
    params = moved(init(guide, key, *args))
    values, record = trace(guide, params, key, *args)
    theirs = _pyros(kind, model, guide, constrain(guide, params, *args), args)
    drawn = {f"_{kind}_latent": value for n, value in record.latents.items() if "_auto" in n}
    if kind == "AutoNormal":
        drawn = {f"{n}_unconstrained": record.latents[n] for n in values if n in record.latents}
        drawn |= {n: v for n, v in record.latents.items() if n.endswith("_unconstrained")}
    found = poutine.trace(poutine.condition(theirs, data=drawn)).get_trace(*args)
    torch.testing.assert_close(record.log_density, found.log_prob_sum(), rtol=1e-4, atol=1e-4)
    for site, value in values.items():
        torch.testing.assert_close(value, found.nodes[site]["value"])


@every_guide
@every_model
def test_gradients_reach_every_leaf(kind: str, name: str, key: random.Key) -> None:
    model, args = MODELS[name]
    guide = GUIDES[kind](model)
    params = {**moved(init(guide, key, *args)), **_own(model)}
    gradients = torch.func.grad(lambda params: Trace_ELBO().loss(model, guide, params, key, *args))(
        params
    )
    for path, gradient in gradients.items():
        assert bool(torch.isfinite(gradient).all()), path
        assert bool((gradient != 0).any()), path


@every_guide
@every_model
def test_draws_under_vmap_are_those_of_a_loop(kind: str, name: str, key: random.Key) -> None:
    model, args = MODELS[name]
    guide = GUIDES[kind](model)
    params, keys = moved(init(guide, key, *args)), random.split(key, 5)
    together = torch.vmap(lambda key: guide.sample_posterior(params, key, *args))(keys)
    alone = [guide.sample_posterior(params, random.Key(key), *args) for key in keys]
    for site, value in together.items():
        expected = torch.stack([values[site].expand(value.shape[1:]) for values in alone])
        if kind == "AutoIAFNormal":  # its networks multiply matrices: equal to rounding
            torch.testing.assert_close(value, expected)
        else:
            assert torch.equal(value, expected), site


@every_guide
def test_members_of_an_ensemble_start_from_their_keys(kind: str, key: random.Key) -> None:
    guide, keys = GUIDES[kind](pair), random.split(key, 3)
    together = torch.vmap(lambda key: init(guide, key), out_dims=0)(keys)
    for i, own in enumerate(keys):
        for path, value in init(guide, random.Key(own)).items():
            torch.testing.assert_close(together[path].expand(3, *value.shape)[i], value)


@every_guide
def test_steps_under_vmap_over_params(kind: str, key: random.Key) -> None:
    guide, keys = GUIDES[kind](supports), random.split(key, 3)
    params = moved(init(guide, key))
    stacked = {path: torch.stack([value] * 3) for path, value in params.items()}

    def loss(params: dict[str, Tensor], key: Tensor) -> Tensor:
        return Trace_ELBO().loss(supports, guide, params, random.Key(key))

    together = torch.vmap(torch.func.grad(loss))(stacked, keys)
    alone = torch.func.grad(loss)(params, keys[1])
    for path, gradient in alone.items():
        torch.testing.assert_close(together[path][1], gradient, rtol=1e-3, atol=1e-4)


@every_guide
def test_guides_pickle(kind: str, key: random.Key) -> None:
    model, args = MODELS["regression"]
    guide = GUIDES[kind](model)
    params = init(guide, key, *args)
    again = pickle.loads(pickle.dumps(guide))
    for site, value in apply(guide, params, key, *args).items():
        assert torch.equal(value, apply(again, params, key, *args)[site])


@every_guide
def test_arguments_without_data_leave_the_data_to_the_model(kind: str, key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(GUIDES[kind](model), key, x, y)
    fresh = GUIDES[kind](model)
    assert set(apply(fresh, params, key, x[:3])) == {"linear.weight", "linear.bias", "sigma"}


@every_guide
def test_guides_are_ordinary_pyro_guides(kind: str) -> None:
    guide = GUIDES[kind](pair)
    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(pair, guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    losses = [svi.step() for _ in range(20)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert "locs.scale" in pyro.get_param_store()


@every_guide
def test_a_discrete_site_is_refused(kind: str, key: random.Key) -> None:
    def model() -> None:
        pyro.sample("k", dist.Bernoulli(0.5))

    with pytest.raises(DeclarationError, match=r"latent site 'k' is discrete \(Bernoulli\)"):
        init(GUIDES[kind](model), key)


@every_guide
def test_a_missing_parameter_is_named(kind: str, key: random.Key) -> None:
    model, args = MODELS["regression"]
    guide = GUIDES[kind](model)
    params = init(guide, key, *args)
    del params["locs.sigma"]
    with pytest.raises(MissingNameError, match=r"no 'locs\.sigma'"):
        apply(guide, params, key, *args)


@every_guide
def test_a_parameter_of_another_shape_is_named(kind: str, key: random.Key) -> None:
    guide = GUIDES[kind](pair)
    params = {**init(guide, key), "locs.loc": torch.zeros(3)}
    with pytest.raises(ShapeError, match=r"'locs\.loc' has the shape \[3\]"):
        apply(guide, params, key)


def subsampled(data: Tensor) -> None:
    """Local sites in a plate of which each run sees a part."""
    top = pyro.sample("top", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(data), subsample_size=2) as index:
        local = pyro.sample("local", dist.Normal(top, 1.0))
        other = pyro.sample("other", dist.LogNormal(local, 1.0))
        pyro.sample("obs", dist.Normal(other, 1.0), obs=data[index])


@every_joint_guide
def test_joint_guides_refuse_subsampled_plates(kind: str, key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=r"'local' is in the plate 'rows', .* 2 of 6"):
        init(GUIDES[kind](subsampled), key, torch.zeros(6))


@every_joint_guide
def test_joint_guides_refuse_an_empty_model(kind: str, key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=rf"{kind} found no latent site"):
        init(GUIDES[kind](lambda: None), key)


@pytest.mark.parametrize("kind", ["AutoDelta", "AutoNormal"])
def test_mean_field_guides_subsample_with_the_model(kind: str, key: random.Key) -> None:
    data, guide = torch.arange(6.0), GUIDES[kind](subsampled)
    params = moved(init(guide, key, data))
    assert params["locs.local"].shape == (6,)
    gradients = torch.func.grad(
        lambda params: Trace_ELBO().loss(subsampled, guide, params, key, data)
    )(params)
    index = trace(guide, params, key, data)[1].latents["rows"]
    others = [i for i in range(6) if i not in index.tolist()]
    assert len(others) == 4
    for site in ("local", "other"):
        assert bool((gradients[f"locs.{site}"][others] == 0).all())
        assert bool((gradients[f"locs.{site}"][index] != 0).all())


# --------------------------------------------------------------------------- medians and quantiles


@every_guide
@every_model
def test_medians_are_pyros(kind: str, name: str, key: random.Key) -> None:
    model, args = MODELS[name]
    guide = GUIDES[kind](model)
    params = moved(init(guide, key, *args))
    if kind == "AutoIAFNormal":
        with pytest.raises(DeclarationError, match="no quantiles in closed form"):
            guide.median(params, *args)
        return
    found = guide.median({**params, "linear.scale": torch.zeros(())}, *args)
    if kind == "AutoLaplaceApproximation":
        expected = apply(guide, params, key, *args)
    else:
        expected = _pyros(kind, model, guide, constrain(guide, params, *args), args).median(*args)
    assert set(found) == set(expected)
    for site, value in found.items():
        torch.testing.assert_close(value, expected[site])


@pytest.mark.parametrize("kind", [k for k in GUIDES if k.endswith("Normal") and "IAF" not in k])
def test_quantiles_are_those_of_the_normal_law(kind: str, key: random.Key) -> None:
    guide = GUIDES[kind](pair)
    params = moved(init(guide, key))
    found = guide.quantiles(params, [0.0, 0.1, 0.5, 0.9])
    draws = torch.vmap(lambda key: guide.sample_posterior(params, key))(random.split(key, 20_000))
    for site in ("loc", "scale"):
        assert found[site].shape == (4,)
        spread = draws[site].std().item()
        # 20,000 draws: the standard error of a quantile at 0.1 is about 0.012 deviations.
        torch.testing.assert_close(
            found[site][1:],
            torch.quantile(draws[site], torch.tensor([0.1, 0.5, 0.9])),
            rtol=0.0,
            atol=0.05 * spread,
        )
    assert found["loc"][0] == -torch.inf
    assert found["scale"][0] == 0


def test_quantiles_in_closed_form(key: random.Key) -> None:
    guide = AutoNormal(pair, init_scale=0.5)
    found = guide.quantiles(init(guide, key), torch.tensor([0.25, 0.75]))
    quartile = 0.5 * 0.6744897501960817
    expected = torch.tensor([-quartile, quartile])
    torch.testing.assert_close(found["loc"], expected)
    torch.testing.assert_close(found["scale"], expected.exp())


def test_quantiles_of_a_point_are_the_point(key: random.Key) -> None:
    for guide in (AutoDelta(pair), AutoLaplaceApproximation(pair)):
        params = init(guide, key)
        found = guide.quantiles(params, [0.0, 0.5, 1.0])
        torch.testing.assert_close(found["scale"], apply(guide, params, key)["scale"].expand(3))


def test_a_level_that_is_no_probability(key: random.Key) -> None:
    guide = AutoNormal(pair)
    with pytest.raises(SupportError, match=r"quantiles are \[5, 95\]"):
        guide.quantiles(init(guide, key), [5, 95])


# ----------------------------------------------------------------------------------------- helpers


class PyroGuide(Protocol):
    """What the tests need of Pyro's guides."""

    def __call__(self, *args: Tensor) -> dict[str, Tensor]: ...
    def median(self, *args: Tensor) -> dict[str, Tensor]: ...


def _own(model: Model) -> dict[str, Tensor]:
    """The model's own parameters."""
    return init(model, random.key(0)) if isinstance(model, Module) else {}


def _pyros(
    kind: str,
    model: Model,
    guide: AutoGuide[...],
    params: dict[str, Tensor],
    args: tuple[Tensor, ...],
) -> PyroGuide:
    """Pyro's guide of the same name, at the same (constrained) parameters."""
    if kind == "AutoIAFNormal":
        return _pyros_flow(model, guide, params)
    build: Callable[[Model], PyroGuide] = getattr(autoguide, kind)
    theirs = build(model)
    theirs(*args)
    for path, value in params.items():
        if kind == "AutoNormal":
            _assign(theirs, path, value)
        elif kind == "AutoDelta":
            _assign(theirs, path.removeprefix("locs."), value)
        elif path == "auto_cov_factor":
            _assign(theirs, "cov_factor", torch.nn.Parameter(value))
        elif path.startswith("auto_"):
            _assign(theirs, path.removeprefix("auto_"), value)
    if kind not in ("AutoNormal", "AutoDelta"):
        _assign(theirs, "loc", torch.nn.Parameter(_joined(params)))
    return theirs


def _pyros_flow(model: Model, guide: AutoGuide[...], params: dict[str, Tensor]) -> PyroGuide:
    assert isinstance(guide, AutoIAFNormal)
    loc = _joined(params)
    transform = copy.deepcopy(next(iter(guide._transforms.values())))
    assert isinstance(transform, torch.nn.Module)
    for path, value in transform.named_parameters():
        value.data = params[f"auto_transform.{path}"]
    # Pyro's flow has no location of its own.
    shift = dist.transforms.AffineTransform(loc, 1.0, event_dim=1)
    whole = dist.transforms.ComposeTransform([transform, shift])
    build: Callable[..., PyroGuide] = autoguide.AutoNormalizingFlow
    theirs = build(model, lambda _: whole)
    _assign(theirs, "_pyro_name", "AutoIAFNormal")
    return theirs


def _joined(params: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1) for n, v in params.items() if n.startswith("locs.")])


def _assign(owner: object, path: str, value: object) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, value)
