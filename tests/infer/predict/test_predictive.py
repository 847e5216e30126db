"""Prediction: exact shapes, which sites come back, and the same draws for any number of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from models import regression, regression_data
from purepyro import init, random, trace
from purepyro._errors import (
    DeclarationError,
    KeyReuseError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
)
from purepyro.infer import AutoNormal, Predictive


def line(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    mean = pyro.deterministic("mean", slope * x)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, 0.1), obs=y)


X = torch.linspace(-1.0, 1.0, 4)


def test_from_the_prior(key: random.Key) -> None:
    draws = Predictive(line, num_samples=6)(key, X)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "slope": (6,),
        "mean": (6, 4),
        "y": (6, 4),
    }
    torch.testing.assert_close(draws["mean"], draws["slope"][:, None] * X)


def test_from_posterior_samples(key: random.Key) -> None:
    slopes = torch.tensor([1.0, 2.0, 3.0])
    draws = Predictive(line, posterior_samples={"slope": slopes})(key, X)
    assert set(draws) == {"mean", "y"}
    torch.testing.assert_close(draws["mean"], slopes[:, None] * X)


def test_deterministic_sites_are_computed_anew(key: random.Key) -> None:
    stale = {"slope": torch.ones(3), "mean": torch.full((3, 4), 99.0)}
    draws = Predictive(line, posterior_samples=stale, return_sites=["mean"])(key, 2 * X)
    torch.testing.assert_close(draws["mean"], (2 * X).expand(3, 4))


def test_from_a_guide(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    guide = AutoNormal(model)
    params = {**init(guide, key, x, y), **init(model, key)}
    predictive = Predictive(model, guide=guide, params=params, num_samples=5)
    assert {n: tuple(v.shape) for n, v in predictive(key, x[:7]).items()} == {"obs": (5, 7)}
    sites = ["linear.weight", "sigma"]
    some = Predictive(model, guide=guide, params=params, num_samples=5, return_sites=sites)
    draws = some(key, x[:7])
    assert draws["linear.weight"].shape == (5, 1, 3)
    assert draws["sigma"].shape == (5,)


def test_observed_sites_come_back_only_by_name(key: random.Key) -> None:
    y = torch.zeros(4)
    assert "y" not in Predictive(line, num_samples=2)(key, X, y)
    named = Predictive(line, num_samples=2, return_sites=["y"])(key, X, y)
    assert torch.equal(named["y"], torch.zeros(2, 4))


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_a_draw_does_not_depend_on_the_others(key: random.Key, chunk_size: int | None) -> None:
    many = Predictive(line, num_samples=9, chunk_size=chunk_size)(key, X)
    few = Predictive(line, num_samples=3)(key, X)
    for name, value in few.items():
        assert torch.equal(many[name][:3], value)


def test_scalars_and_no_data(key: random.Key) -> None:
    draws = Predictive(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), num_samples=1)(key)
    assert draws["z"].shape == (1,)


def test_an_unknown_site(key: random.Key) -> None:
    with pytest.raises(UnknownNameError, match=r"return_sites has 'meen'.*'mean'"):
        Predictive(line, num_samples=2, return_sites=["meen"])(key, X)


@pytest.mark.parametrize("count", [None, 0, -1])
def test_a_wrong_count(count: int | None) -> None:
    with pytest.raises(ShapeError, match=r"Predictive got num_samples=.*>= 1"):
        Predictive(line, num_samples=count)


def test_samples_of_no_site(key: random.Key) -> None:
    """Else ``slope`` would silently come from its prior."""
    predictive = Predictive(line, posterior_samples={"slop": torch.ones(3)})
    with pytest.raises(UnknownNameError, match=r"posterior_samples have 'slop'.*'slope'"):
        predictive(key, X)


def test_observed_sites_are_not_fed_back(key: random.Key) -> None:
    stale = {"slope": torch.ones(3), "y": torch.full((3, 4), 99.0)}
    draws = Predictive(line, posterior_samples=stale, return_sites=["y"])(key, X, torch.zeros(4))
    assert torch.equal(draws["y"], torch.zeros(3, 4))


def test_samples_that_differ_in_number() -> None:
    with pytest.raises(ShapeError, match=r"different numbers of draws.*'slope': 3"):
        Predictive(line, posterior_samples={"slope": torch.ones(3), "other": torch.ones(2)})


def test_samples_and_a_guide() -> None:
    with pytest.raises(DeclarationError, match=r"both posterior_samples and a guide"):
        Predictive(line, posterior_samples={"slope": torch.ones(3)}, guide=line)


def test_a_key_used_twice(key: random.Key) -> None:
    with random.forbid_reuse():
        Predictive(line, num_samples=2)(key, X)
        with pytest.raises(KeyReuseError, match=r"Predictive"):
            Predictive(line, num_samples=2)(key, X)


def test_its_page_runs() -> None:
    page = Path(__file__).parents[3] / "docs" / "predict.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    draws = names["draws"]
    assert isinstance(draws, dict)
    torch.testing.assert_close(draws["y"].mean(0), torch.tensor([1.0, 4.0]), atol=0.05, rtol=0)


def test_a_discrete_likelihood_is_left_to_the_model(key: random.Key) -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Poisson(rate * x), obs=y)

    guide, x = AutoNormal(model), torch.ones(4)
    params = init(guide, key, x, torch.ones(4))
    draws = Predictive(model, guide=guide, params=params, num_samples=5)(key, x)
    assert draws["y"].shape == (5, 4)


def test_the_indices_of_a_plate_are_returned_by_name(key: random.Key) -> None:
    def model(y: Tensor | None = None) -> None:
        with pyro.plate("rows", 10, subsample_size=3) as rows:
            obs = None if y is None else y[rows]
            pyro.sample("y", dist.Normal(rows.float(), 1e-6), obs=obs)

    latents = trace(model, {}, key, torch.zeros(10))[1].latents
    assert set(latents) == {"rows"}
    draws = Predictive(model, num_samples=5, return_sites=[*latents, "y"])(key)
    assert draws["rows"].shape == (5, 3)
    torch.testing.assert_close(draws["y"], draws["rows"].float(), rtol=0, atol=1e-4)
    given = {"rows": torch.tensor([[0, 1, 2], [7, 8, 9]])}
    names = ["rows", "y"]
    again = Predictive(model, posterior_samples=given, return_sites=names)(key)
    assert torch.equal(again["rows"], given["rows"])
    torch.testing.assert_close(again["y"], given["rows"].float(), rtol=0, atol=1e-4)
    assert "rows" not in Predictive(model, num_samples=2)(key)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_data_that_leave_nothing_to_predict(how: Literal["vmap", "loop"], key: random.Key) -> None:
    def model(y: Tensor | None = None) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 4):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    given = {"loc": torch.zeros(3)}
    predictive = Predictive(model, posterior_samples=given, map=how)
    with pytest.raises(MissingNameError, match=r"\['y'\].*without the data.*return_sites=\['y', "):
        predictive(key, X)
    assert set(predictive(key)) == {"y"}  # the one way out, and the other
    named = Predictive(model, posterior_samples=given, map=how, return_sites=["y", "loc"])
    assert torch.equal(named(key, X)["y"], X.expand(3, 4))


def test_a_model_of_which_all_is_given(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("a", dist.Normal(0.0, 1.0))

    given = {"a": torch.zeros(3)}
    with pytest.raises(MissingNameError, match=r"All sites of the model, \['a'\], were given"):
        Predictive(model, posterior_samples=given)(key)
    assert Predictive(model, posterior_samples=given, return_sites=["a"])(key)["a"].shape == (3,)


def test_a_model_without_sites(key: random.Key) -> None:
    with pytest.raises(MissingNameError, match=r"has no site.*pyro\.deterministic"):
        Predictive(lambda: None, num_samples=2)(key)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_nothing_is_returned_where_nothing_is_asked_for(
    how: Literal["vmap", "loop"], key: random.Key
) -> None:
    assert Predictive(line, num_samples=2, return_sites=[], map=how)(key, X) == {}


def test_a_deterministic_site_is_enough(key: random.Key) -> None:
    given = {"slope": torch.ones(3)}
    assert set(Predictive(line, posterior_samples=given)(key, X, X)) == {"mean"}


def test_one_name_that_is_no_list() -> None:
    with pytest.raises(DeclarationError, match=r"return_sites=\['mean'\]"):
        Predictive(line, num_samples=2, return_sites="mean")


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_size_of_chunks_that_is_none(size: object) -> None:
    settings: dict[str, Any] = {"num_samples": 2, "chunk_size": size}
    with pytest.raises(ShapeError, match="chunk_size is"):
        Predictive(line, **settings)
