"""Pyro's own automatic guides, run by ``init``, ``apply`` and SVI."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.infer import autoguide
from torch import Tensor

from models import regression, regression_data
from purepyro import apply, constrain, init, random, trace
from purepyro._errors import DeclarationError
from purepyro.infer import SVI

KINDS = [
    "AutoDelta",
    "AutoNormal",
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoLaplaceApproximation",
]


def theirs(kind: str, model: Callable[..., object]) -> Callable[..., dict[str, Tensor]]:
    build: Callable[..., Callable[..., dict[str, Tensor]]] = getattr(autoguide, kind)
    return build(model)


@pytest.mark.parametrize("kind", KINDS)
def test_pyros_guides_run_after_their_first_call(kind: str, key: random.Key) -> None:
    model, data = regression(), regression_data()
    guide = theirs(kind, model)
    guide(*data)
    params = init(guide, key, *data)
    assert params
    assert all(name.startswith(f"{kind}.") for name in params)
    values = apply(guide, params, key, *data)
    assert set(values) == {"linear.weight", "linear.bias", "sigma"}
    moved = {name: value + 0.3 for name, value in params.items()}

    def density(params: dict[str, Tensor]) -> Tensor:
        values, record = trace(guide, params, key, *data)
        return record.log_density + sum(v.sum() for v in values.values())

    for name, gradient in torch.func.grad(density)(moved).items():
        assert bool((gradient != 0).any()), name
    draws = torch.vmap(lambda key: apply(guide, moved, key, *data))(random.split(key, 4))
    assert draws["linear.weight"].shape == (4, 1, 3)


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoMultivariateNormal"])
def test_pyros_guides_train_under_svi(kind: str, key: random.Key) -> None:
    model, data = regression(), regression_data()
    guide = theirs(kind, model)
    guide(*data)
    result = SVI(model, guide, torchopt.adam(0.02)).run(key, 200, *data)
    assert result.losses[-20:].mean() < result.losses[:20].mean()


def test_a_pyro_guide_before_its_first_call(key: random.Key) -> None:
    data = regression_data()
    guide = theirs("AutoNormal", regression())
    with pytest.raises(DeclarationError, match=r"'AutoNormal\.locs\..*' is made by a PyroModule"):
        init(guide, key, *data)


def test_a_second_read_of_a_parameter_is_constrained_too(key: random.Key) -> None:
    def model() -> tuple[Tensor, Tensor]:
        start = torch.tensor(2.0)
        first = pyro.param("sd", start, constraint=dist.constraints.positive)
        return first, pyro.param("sd")

    params = init(model, key)
    first, second = apply(model, params, key)
    assert first == second == 2.0
    assert constrain(model, params)["sd"] == 2.0


@pytest.mark.parametrize(
    "kind",
    [
        "AutoIAFNormal",
        "AutoGaussian",
        "AutoStructured",
        "AutoNormalMessenger",
        "AutoHierarchicalNormalMessenger",
        "AutoRegressiveMessenger",
    ],
)
def test_the_others_of_pyro_draw_from_the_key(kind: str, key: random.Key) -> None:
    guide, data = theirs(kind, regression()), regression_data()
    guide(*data)
    params = init(guide, key, *data)
    before = torch.get_rng_state()
    _, record = trace(guide, params, key, *data)
    _, again = trace(guide, params, key, *data)
    _, other = trace(guide, params, random.key(1), *data)
    assert torch.equal(torch.get_rng_state(), before)
    assert record.latents.keys() >= {"linear.weight", "linear.bias", "sigma"}
    for name, value in record.latents.items():
        assert torch.equal(value, again.latents[name])
    assert not torch.equal(record.latents["sigma"], other.latents["sigma"])
