"""The log density of each datum: exact values and shapes, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from models import regression, regression_data
from purepyro import init, random
from purepyro._errors import MissingNameError, ShapeError, UnknownNameError
from purepyro.infer import AutoNormal, LogLikelihood, Predictive

X = torch.linspace(-1.0, 1.0, 4)
Y = torch.tensor([0.5, -0.5, 1.0, 2.0])
SLOPES = torch.tensor([1.0, 2.0, -3.0])
EXACT = dist.Normal(SLOPES[:, None] * X, 0.5).log_prob(Y)


def line(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    mean = pyro.deterministic("mean", slope * x)
    pyro.factor("extra", slope)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


@pytest.mark.parametrize("chunk_size", [1, 2, None])
def test_one_number_a_datum_and_draw(chunk_size: int | None) -> None:
    score = LogLikelihood(line, {}, {"slope": SLOPES}, chunk_size=chunk_size)
    found = score(X, Y)
    assert set(found) == {"y"}
    torch.testing.assert_close(found["y"], EXACT)
    torch.testing.assert_close(score(X, y=Y)["y"], EXACT)


def test_deterministic_and_observed_sites_are_not_fed_back() -> None:
    stale = {"slope": SLOPES, "mean": torch.full((3, 4), 99.0), "y": torch.zeros(3, 9)}
    torch.testing.assert_close(LogLikelihood(line, {}, stale)(X, Y)["y"], EXACT)


def test_an_event_is_one_datum() -> None:
    def rows(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=y)
        pyro.sample("total", dist.Normal(loc.sum(), 1.0), obs=y.sum())

    found = LogLikelihood(rows, {}, {"loc": torch.zeros(5, 2)})(torch.ones(3, 2))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "y": (5, 3),
        "total": (5,),
    }


def test_scales_are_left_out_and_a_masked_datum_is_zero() -> None:
    mask = torch.tensor([True, False, True, True])

    def masked(x: Tensor, y: Tensor) -> None:
        with poutine.scale(scale=10.0), poutine.mask(mask=mask):
            line(x, y)

    found = LogLikelihood(masked, {}, {"slope": SLOPES})(X, Y)["y"]
    torch.testing.assert_close(found, EXACT * mask)


def test_a_subsampled_plate() -> None:
    """The batch that a plate of 100 rows hands out counts as it is, not 25 times."""

    def batch(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 100, subsample=torch.arange(4)):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    found = LogLikelihood(batch, {}, {"loc": SLOPES})(Y)["y"]
    torch.testing.assert_close(found, dist.Normal(SLOPES[:, None], 1.0).log_prob(Y))


def test_of_a_fitted_module(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    guide = AutoNormal(model)
    params = {**init(guide, key, x, y), **init(model, key)}
    sites = ["linear.weight", "linear.bias", "sigma"]
    draws = Predictive(model, guide=guide, params=params, num_samples=5, return_sites=sites)(key, x)
    found = LogLikelihood(model, params, draws)(x, y)["obs"]
    mean = (x @ draws["linear.weight"].mT).squeeze(-1) + draws["linear.bias"][:, None]
    torch.testing.assert_close(found, dist.Normal(mean, draws["sigma"][:, None]).log_prob(y))


def test_by_condition() -> None:
    conditioned = poutine.condition(line, data={"y": Y})
    torch.testing.assert_close(LogLikelihood(conditioned, {}, {"slope": SLOPES})(X)["y"], EXACT)


def test_without_data() -> None:
    with pytest.raises(MissingNameError, match=r"values have none for the site 'y'"):
        LogLikelihood(line, {}, {"slope": SLOPES})(X)
    with pytest.raises(MissingNameError, match=r"observed nothing.*Pass the data"):
        LogLikelihood(line, {}, {"slope": SLOPES, "y": torch.zeros(3, 4)})(X)


def test_a_latent_site_without_draws() -> None:
    def two(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        line(scale * X, y)

    with pytest.raises(MissingNameError, match=r"none for the site 'scale'"):
        LogLikelihood(two, {}, {"slope": SLOPES})(Y)


def test_draws_of_no_site() -> None:
    draws = {"slope": SLOPES, "slop": SLOPES}
    with pytest.raises(UnknownNameError, match=r"'slop', which names no site.*'slope'"):
        LogLikelihood(line, {}, draws)(X, Y)


@pytest.mark.parametrize("draws", [{}, {"slope": torch.tensor(1.0)}, {"slope": torch.ones(0)}])
def test_no_draws(draws: dict[str, Tensor]) -> None:
    with pytest.raises(ShapeError, match=r"LogLikelihood got posterior_samples without a draw"):
        LogLikelihood(line, {}, draws)


def test_draws_that_differ_in_number() -> None:
    with pytest.raises(ShapeError, match=r"different numbers of draws.*'slope': 3"):
        LogLikelihood(line, {}, {"slope": SLOPES, "other": torch.ones(2)})


def test_its_page_runs() -> None:
    page = Path(__file__).parents[3] / "docs" / "diagnose.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    scores, covered = names["scores"], names["covered"]
    assert isinstance(scores, Tensor)
    assert scores.shape == (1_000, 20)
    assert isinstance(covered, Tensor)
    assert covered > 0.75
