"""Export to ArviZ: groups, shapes, and a comparison of models that agrees with the formula."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType, SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from purepyro import random
from purepyro._errors import ShapeError
from purepyro.infer import LogLikelihood, Predictive, to_inference_data


def line(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 0.5), obs=y)


X = torch.linspace(-1.0, 1.0, 8)
Y = X + torch.tensor([0.3, -0.2, 0.1, 0.4, -0.5, 0.0, 0.2, -0.1])


@pytest.fixture
def arviz() -> ModuleType:
    """ArviZ, which once a day says on import that it will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = pytest.importorskip("arviz")
    assert isinstance(module, ModuleType)
    return module


def exact_draws(key: random.Key, count: int) -> dict[str, Tensor]:
    """Draws of the exact posterior of the slope."""
    precision = 1 + X.square().sum() / 0.25
    mean = (X * Y).sum() / 0.25 / precision
    return {"slope": mean + random.normal(key, count) / precision.sqrt()}


def test_groups_and_shapes(key: random.Key, arviz: ModuleType) -> None:
    samples = exact_draws(key, 50)
    prior = Predictive(line, num_samples=20)(key, X)
    data = to_inference_data(
        posterior=samples,
        posterior_predictive=Predictive(line, posterior_samples=samples)(key, X),
        log_likelihood=LogLikelihood(line, {}, samples)(X, Y),
        predictions=Predictive(line, posterior_samples=samples)(key, X[:3]),
        prior={"slope": prior["slope"]},
        prior_predictive={"y": prior["y"]},
        observed_data={"y": Y},
        constant_data={"x": X},
    )
    shapes = {
        (group, name): data[group][name].shape
        for group, name in [
            ("posterior", "slope"),
            ("posterior_predictive", "y"),
            ("log_likelihood", "y"),
            ("predictions", "y"),
            ("prior", "slope"),
            ("prior_predictive", "y"),
            ("observed_data", "y"),
            ("constant_data", "x"),
        ]
    }
    expected = [(1, 50), (1, 50, 8), (1, 50, 8), (1, 50, 3), (1, 20), (1, 20, 8), (8,), (8,)]
    assert list(shapes.values()) == expected
    found = torch.as_tensor(data["posterior"]["slope"].values[0])
    assert torch.equal(found, samples["slope"])


def test_names_of_dimensions(key: random.Key, arviz: ModuleType) -> None:
    weights = random.normal(key, 5, 2)
    data = to_inference_data(
        posterior={"weight": weights},
        coords={"column": ["age", "bmi"]},
        dims={"weight": ["column"]},
    )
    weight = data["posterior"]["weight"]
    assert weight.dims == ("chain", "draw", "column")
    assert torch.equal(torch.as_tensor(weight.sel(column="bmi").values[0]), weights[:, 1])


def test_leave_one_out_is_exact(key: random.Key, arviz: ModuleType) -> None:
    """4,000 exact draws: the PSIS estimate within .05 of the exact sum over left-out data."""
    samples = exact_draws(key, 4_000)
    data = to_inference_data(
        posterior=samples, log_likelihood=LogLikelihood(line, {}, samples)(X, Y)
    )
    exact = torch.zeros(())
    for left in range(len(X)):
        rest = torch.arange(len(X)) != left
        precision = 1 + X[rest].square().sum() / 0.25
        mean = (X[rest] * Y[rest]).sum() / 0.25 / precision
        sd = (X[left].square() / precision + 0.25).sqrt()
        exact = exact + dist.Normal(mean * X[left], sd).log_prob(Y[left])
    found = arviz.loo(data)
    estimate = torch.tensor(float(found.elpd if hasattr(found, "elpd") else found.elpd_loo))
    torch.testing.assert_close(estimate, exact, atol=0.05, rtol=0)


def test_both_versions_are_called_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def from_dict(*args: object, **kwargs: object) -> None:
        calls.append((len(args), sorted(kwargs)))

    for version in ("0.23.4", "1.3.0"):
        fake = SimpleNamespace(__version__=version, from_dict=from_dict)
        monkeypatch.setitem(sys.modules, "arviz", fake)
        to_inference_data(posterior={"slope": torch.ones(2)})
    assert calls == [(0, ["coords", "dims", "posterior"]), (1, ["coords", "dims"])]


def test_without_arviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"needs ArviZ.*pip install 'purepyro\[arviz\]'"):
        to_inference_data(posterior={"slope": torch.ones(2)})


@pytest.mark.parametrize("scores", [torch.ones(3, 8), torch.tensor(1.0)])
def test_draws_that_differ_in_number(scores: Tensor) -> None:
    message = r"different numbers of draws, or none \(posterior 'slope': 2, log_likelihood 'y': \d"
    with pytest.raises(ShapeError, match=message):
        to_inference_data(posterior={"slope": torch.ones(2)}, log_likelihood={"y": scores})
