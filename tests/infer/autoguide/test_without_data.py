"""What a guide says without the model's data: its declared fields, or an error."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor, nn

from purepyro import Lifted, Module, PyroSample, lift, random
from purepyro._errors import DeclarationError
from purepyro.infer import SVI, AutoDelta, AutoMultivariateNormal, AutoNormal, Predictive
from purepyro.infer.autoguide._model_guide import ModelGuide

X = torch.linspace(-1.0, 1.0, 6)
Y = X + 0.5


class Net(Module):
    net: Lifted[[Tensor], Tensor]
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.predict(x), self.sigma
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)
        return mean

    def predict(self, x: Tensor) -> Tensor:
        """The mean at other inputs."""
        return pyro.deterministic("mean", self.net(x.unsqueeze(-1)).squeeze(-1))


class Extra(Module):
    a = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor) -> None:
        a, b = self.a, pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(a + b * x, 1.0), obs=y)


NET = Net(lift(nn.Linear(1, 1), dist.Normal(0.0, 1.0)))


def fitted(guide: ModelGuide[...], key: random.Key) -> dict[str, Tensor]:
    """Parameters after a short fit."""
    return SVI(guide.model, guide, torchopt.adam(0.1)).run(key, 3, X, Y).state.params


@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta])
def test_declared_sites_need_no_data(kind: type[ModelGuide[...]], key: random.Key) -> None:
    guide = kind(NET)
    params = fitted(guide, key)
    for with_data, without in (
        (guide.median(params, X, Y), guide.median(params)),
        (guide.quantiles(params, [0.1, 0.9], X, Y), guide.quantiles(params, [0.1, 0.9])),
        (guide.sample_posterior(params, key, X, Y), guide.sample_posterior(params, key)),
    ):
        assert with_data.keys() == without.keys() == {"net.weight", "net.bias", "sigma"}
        for name, value in with_data.items():
            assert torch.equal(value, without[name])


def test_sites_that_only_a_run_knows_are_refused(key: random.Key) -> None:
    guide: Any = AutoNormal(Extra())
    params = fitted(guide, key)
    with pytest.raises(DeclarationError, match=r"sites \['b'\], which no field declares"):
        guide.median(params)
    assert guide.median(params, X, Y).keys() == {"a", "b"}


def test_guides_of_one_vector_are_refused(key: random.Key) -> None:
    """Its entries are in the order of a run, which nobody knows without the data."""
    guide: Any = AutoMultivariateNormal(NET)
    params = fitted(guide, key)
    with pytest.raises(DeclarationError, match=r"in the order in which a run draws them\. Pass th"):
        guide.median(params)


def test_functions_are_refused(key: random.Key) -> None:
    def model(x: Tensor) -> None:
        pyro.sample("a", dist.Normal(x.sum(), 1.0))

    guide: Any = AutoNormal(model)
    with pytest.raises(DeclarationError, match="only a Module declares its sites"):
        guide.median({})


@pytest.mark.parametrize("kind", [AutoNormal, AutoDelta])
def test_another_method_at_posterior_values(kind: type[ModelGuide[...]], key: random.Key) -> None:
    """``predict`` takes other arguments than the model that the guide was fitted to."""
    guide = kind(NET)
    params = fitted(guide, key)
    at = torch.zeros(2)
    predictive: Any = Predictive(NET.predict, guide=guide, params=params, num_samples=4)
    draws = predictive(key, at)
    assert draws["mean"].shape == (4, 2)
    # The same draws of the sites as with the data of the fit.
    whole: Any = Predictive(
        NET, guide=guide, params=params, num_samples=4, return_sites=["net.bias", "mean"]
    )
    bias = whole(key, X, Y)["net.bias"]
    torch.testing.assert_close(draws["mean"][:, 0], bias.squeeze(-1))


def test_the_value_that_a_model_returns(key: random.Key) -> None:
    guide = AutoNormal(NET)
    params = fitted(guide, key)
    predictive: Any = Predictive(
        NET.predict, guide=guide, params=params, num_samples=4, return_sites=["_RETURN", "mean"]
    )
    draws = predictive(key, X)
    assert torch.equal(draws["_RETURN"], draws["mean"])

    def nothing() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(DeclarationError, match=r"'_RETURN'.*returned None"):
        Predictive(nothing, num_samples=2, return_sites=["_RETURN"])(key)
