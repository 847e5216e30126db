"""The mean-field guide: its parameters, its draws, its agreement with Pyro's."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO as PyroTraceELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from torch import Tensor

from models import regression, regression_data
from purepyro import apply, constrain, init, random, trace
from purepyro._errors import DeclarationError, MissingNameError
from purepyro.infer import AutoNormal, Trace_ELBO


def supports() -> None:
    """A latent site on each kind of support."""
    pyro.sample("real", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("positive", dist.Gamma(2.0, 1.0))
    pyro.sample("interval", dist.Uniform(-2.0, 5.0))
    pyro.sample("unit", dist.Beta(2.0, 2.0))
    pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", 4):
        pyro.sample("local", dist.LogNormal(0.0, 1.0))
        pyro.sample("vector", dist.Dirichlet(torch.ones(3)))


SHAPES = {
    "real": (2,),
    "positive": (),
    "interval": (),
    "unit": (),
    "simplex": (2,),
    "local": (4,),
    "vector": (4, 2),
}


def test_parameters_of_every_support(key: random.Key) -> None:
    guide = AutoNormal(supports, init_scale=0.3)
    params = init(guide, key)
    for name, shape in SHAPES.items():
        assert params[f"locs.{name}"].shape == shape
        assert params[f"scales.{name}"].shape == shape
    scales = constrain(guide, params)
    assert all(
        torch.allclose(value, torch.tensor(0.3))
        for name, value in scales.items()
        if name.startswith("scales")
    )


def test_draws_lie_in_the_support(key: random.Key) -> None:
    guide = AutoNormal(supports, init_scale=1.0)
    params = init(guide, key)
    values = apply(guide, params, key)
    assert set(values) == set(SHAPES)
    assert values["simplex"].shape == (3,)
    torch.testing.assert_close(values["vector"].sum(-1), torch.ones(4))
    assert -2.0 < values["interval"].item() < 5.0
    assert bool((values["local"] > 0).all())


def test_the_density_is_that_of_the_transformed_normal(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("z", dist.Exponential(1.0))

    guide = AutoNormal(model)
    _, record = trace(guide, init(guide, key), key)
    expected = dist.LogNormal(0.0, 0.1).log_prob(record.latents["z"])
    torch.testing.assert_close(record.log_density, expected)


def test_elbo_and_gradients_are_pyros_at_the_same_draws(key: random.Key) -> None:
    """Pyro's guide is given our noise, site by site, in place of its own."""
    model, (x, y) = regression(), regression_data()
    guide = AutoNormal(model)
    params = {**init(guide, key, x, y), **init(model, key)}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return Trace_ELBO().loss(model, guide, params, key, x, y)

    gradients, value = torch.func.grad_and_value(loss)(params)
    own = {name: v for name, v in params.items() if name != "linear.scale"}
    latents = trace(guide, own, key, x, y)[1].latents
    noise = {
        "linear.weight_unconstrained": latents["linear.weight"] / 0.1,
        "linear.bias_unconstrained": latents["linear.bias"] / 0.1,
        "sigma_unconstrained": latents["sigma_unconstrained"] / 0.1,
    }

    class OurNoise(pyro.poutine.messenger.Messenger):
        def _pyro_sample(self, msg: dict[str, object]) -> None:
            fn = msg["fn"]
            if msg["name"] in noise and isinstance(fn, dist.Independent | dist.Normal):
                normal = fn.base_dist if isinstance(fn, dist.Independent) else fn
                assert isinstance(normal, dist.Normal)
                msg["value"] = normal.loc + normal.scale * noise[str(msg["name"])]

    theirs = PyroAutoNormal(model)
    theirs(x, y)
    with OurNoise():
        expected = PyroTraceELBO().differentiable_loss(model, theirs, x, y)
    torch.testing.assert_close(value, expected)
    torch.autograd.backward(expected)
    store = pyro.get_param_store()
    for site in ("linear.weight", "linear.bias", "sigma"):
        for kind in ("locs", "scales"):
            torch.testing.assert_close(
                gradients[f"{kind}.{site}"], store._params[f"AutoNormal.{kind}.{site}"].grad
            )
    torch.testing.assert_close(gradients["linear.scale"], store._params["linear.scale"].grad)


def test_it_runs_in_a_fresh_process_without_a_fit(key: random.Key) -> None:
    """Nothing is remembered from the fit: the params say which sites there are."""
    model, (x, y) = regression(), regression_data()
    params = init(AutoNormal(model), key, x, y)
    fresh = AutoNormal(model)
    assert set(apply(fresh, params, key, x)) == {"linear.weight", "linear.bias", "sigma"}


def test_a_missing_parameter_of_a_declared_site(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    guide = AutoNormal(model)
    params = init(guide, key, x, y)
    del params["locs.sigma"]
    with pytest.raises(MissingNameError, match=r"no 'locs\.sigma'"):
        apply(guide, params, key, x, y)


def test_a_discrete_site_is_refused(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("k", dist.Bernoulli(0.5))

    with pytest.raises(DeclarationError, match=r"latent site 'k' is discrete \(Bernoulli\)"):
        init(AutoNormal(model), key)


def test_a_support_that_moves_is_refused(key: random.Key) -> None:
    def model() -> None:
        top = pyro.sample("top", dist.Gamma(2.0, 1.0))
        pyro.sample("z", dist.Uniform(0.0, top))

    with pytest.raises(DeclarationError, match=r"support .* of the latent site 'z' depends on"):
        init(AutoNormal(model), key)


def test_the_models_parameters_are_not_the_guides(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    assert not any(name.startswith("model") for name in init(AutoNormal(model), key, x, y))
