"""Laws 2 and 3: a draw depends on (key, site name) alone, in a loop and under vmap alike."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchopt import adam

from models import regression, regression_data
from purepyro import Module, PyroSample, apply, init, random, trace
from purepyro.infer import SVI, AutoNormal

NAMES = ["a", "b", "c", "d", "e"]


def sites(names: list[str]) -> Callable[[], dict[str, Tensor]]:
    """A model with these sites, in this order."""

    def model() -> dict[str, Tensor]:
        return {
            name: pyro.sample(name, dist.Normal(torch.zeros(3), 1.0).to_event(1)) for name in names
        }

    return model


@given(st.permutations(NAMES), st.integers(1, 5), st.integers(0, 2**63 - 1))
def test_other_sites_and_their_order_do_not_matter(order: list[str], size: int, seed: int) -> None:
    key = random.key(seed)
    everything = apply(sites(NAMES), {}, key)
    some = apply(sites(order[:size]), {}, key)
    for name, value in some.items():
        assert torch.equal(value, everything[name])


def test_sites_and_keys_differ() -> None:
    one, other = apply(sites(NAMES), {}, random.key(0)), apply(sites(NAMES), {}, random.key(1))
    draws = [*one.values(), *other.values()]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_a_longer_draw_starts_like_a_shorter_one(key: random.Key) -> None:
    def model(size: int) -> Tensor:
        return pyro.sample("z", dist.Normal(torch.zeros(size), 1.0).to_event(1))

    assert torch.equal(apply(model, {}, key, 7)[:3], apply(model, {}, key, 3))


def test_a_site_is_the_same_in_a_module_and_in_a_function(key: random.Key) -> None:
    class One(Module):
        a = PyroSample(dist.Normal(torch.zeros(3), 1.0).to_event(1))

        def forward(self) -> Tensor:
            return self.a

    assert torch.equal(apply(One(), {}, key), apply(sites(["a"]), {}, key)["a"])


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_vmap_is_a_loop(key: random.Key, count: int, chunk_size: int | None) -> None:
    model, (x, y) = regression(), regression_data()
    params, keys = init(model, key), random.split(key, count)

    def latents(key: Tensor) -> dict[str, Tensor]:
        return trace(model, params, random.Key(key), x, y)[1].latents

    many = torch.vmap(latents, chunk_size=chunk_size)(keys)
    for i in range(count):
        for name, value in latents(keys[i]).items():
            assert torch.equal(many[name][i], value), name


def test_vmap_over_parameters_and_keys(key: random.Key) -> None:
    model, (x, _) = regression(), regression_data()
    keys, scales = random.split(key, 4), torch.linspace(-1.0, 1.0, 4)

    def mean(key: Tensor, scale: Tensor) -> Tensor:
        return apply(model, {"linear.scale": scale}, random.Key(key), x)

    many = torch.vmap(mean)(keys, scales)
    for i in range(4):
        torch.testing.assert_close(many[i], mean(keys[i], scales[i]), rtol=1e-6, atol=1e-6)


def test_nested_vmap(key: random.Key) -> None:
    model = sites(["a"])
    keys = random.split(random.Key(random.split(key, 2)), 3)
    many = torch.vmap(torch.vmap(lambda key: apply(model, {}, random.Key(key))["a"]))(keys)
    for i in range(3):
        for j in range(2):
            assert torch.equal(many[i, j], apply(model, {}, random.Key(keys[i, j]))["a"])


def test_subsampled_plates_under_vmap(key: random.Key) -> None:
    def model() -> Tensor:
        with pyro.plate("data", 20, subsample_size=5) as index:
            return index

    keys = random.split(key, 6)
    many = torch.vmap(lambda key: apply(model, {}, random.Key(key)))(keys)
    for i in range(6):
        assert torch.equal(many[i], apply(model, {}, random.Key(keys[i])))
        assert len(set(many[i].tolist())) == 5


def test_a_member_of_an_ensemble_is_the_single_run(key: random.Key) -> None:
    """Initial states bit for bit; after ten steps parameters agree to 1e-5."""
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), adam(1e-2))
    keys = random.split(key, 3)
    states = torch.vmap(lambda key: svi.init(random.Key(key), x, y))(keys)
    single = svi.init(random.Key(keys[1]), x, y)
    for name, value in single.params.items():
        assert torch.equal(states.params[name][1], value), name
    step = torch.vmap(lambda state: svi.step(state, x, y))
    for _ in range(10):
        states, losses = step(states)
        single, loss = svi.step(single, x, y)
        torch.testing.assert_close(losses[1], loss, rtol=1e-4, atol=1e-4)
    for name, value in single.params.items():
        torch.testing.assert_close(states.params[name][1], value, rtol=1e-5, atol=1e-5)
