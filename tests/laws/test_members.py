"""Law 3 for ensembles: member i is the run of key i, whatever the sizes of ensemble and chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models import regression, regression_data
from purepyro import Ensemble, Module, PyroParam, PyroSample, random, replace
from purepyro.ensemble import EnsembleState
from purepyro.infer import SVI, AutoDelta, AutoNormal, SVIState, Trace_ELBO, scale

DATA = regression_data()
KEYS = random.split(random.key(5), 16)


class Network(Module):
    """Two layers of torch, with starting values of the key, and a random noise."""

    net: nn.Sequential
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.net(x).squeeze(-1), self.sigma
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(mean, sigma), obs=y)


def network() -> Network:
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    return replace(
        Network(net),
        {
            "net.0.weight": PyroParam(lambda: nn.init.xavier_uniform_(torch.empty(8, 3))),
            "net.2.weight": PyroParam(lambda: nn.init.xavier_uniform_(torch.empty(1, 8))),
        },
    )


def variational() -> SVI[[Tensor, Tensor | None]]:
    model = regression()
    return SVI(model, AutoNormal(model), torchopt.adam(0.02))


def map_of_network() -> SVI[[Tensor, Tensor | None]]:
    model = network()
    return SVI(model, AutoDelta(model), torchopt.adam(0.02))


def network_variational() -> SVI[[Tensor, Tensor | None]]:
    model = network()
    return SVI(model, AutoNormal(model), torchopt.adam(0.02), Trace_ELBO(num_particles=2))


FITS = (variational, map_of_network, network_variational)
Fit = Callable[[], SVI[[Tensor, Tensor | None]]]


def assert_member_is_run(state: EnsembleState, i: int, alone: SVIState, atol: float) -> None:
    member = Ensemble(variational()).member(state, i)
    assert torch.equal(member.key, alone.key)
    assert torch.equal(member.step, alone.step)
    assert member.params.keys() == alone.params.keys()
    for name, value in alone.params.items():
        torch.testing.assert_close(member.params[name], value, rtol=0.0, atol=atol)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_the_start_of_a_member_is_that_of_its_key(fit: Fit) -> None:
    svi = fit()
    state = Ensemble(svi).init(KEYS[:5], *DATA)
    for i in range(5):
        assert_member_is_run(state, i, svi.init(KEYS[i], *DATA), atol=0.0)


def drawing(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))


@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, None])
@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_draws_are_those_of_the_key_bit_for_bit(
    size: int, chunk_size: int | None, how: Literal["vmap", "loop"]
) -> None:
    """The gradient of the loss in ``w`` is the draw itself, so one step of sgd shows it."""

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3))
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        pyro.factor("f", (w * z).sum())

    svi = SVI(model, drawing, torchopt.sgd(1.0))
    ensemble = Ensemble(svi, chunk_size=chunk_size, map=how, progress_bar=False)
    x = torch.zeros(1)
    state = ensemble.run(KEYS[:size], 1, x).state
    for i in range(size):
        alone = svi.run(KEYS[i], 1, x).state.params["w"]
        assert bool(alone.abs().min() > 0)
        assert torch.equal(state.svi.params["w"][i], alone)


@pytest.mark.slow
@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_trained_members_are_the_runs_of_their_keys(fit: Fit) -> None:
    svi = fit()
    alone = {i: svi.run(KEYS[i], 100, *DATA) for i in (0, 4)}
    for size, chunk_size in ((1, None), (2, 1), (5, 2), (5, None), (16, 3)):
        ensemble = Ensemble(svi, chunk_size=chunk_size, progress_bar=False)
        state, losses = ensemble.run(KEYS[:size], 100, *DATA)
        for i, single in alone.items():
            if i < size:
                assert_member_is_run(state, i, single.state, atol=1e-5)
                torch.testing.assert_close(losses[:, i], single.losses, rtol=1e-4, atol=1e-3)


@settings(max_examples=8)
@given(
    picked=st.lists(st.integers(0, 15), min_size=1, max_size=6, unique=True),
    chunk_size=st.none() | st.integers(1, 4),
    how=st.sampled_from(["vmap", "loop"]),
    num_steps=st.integers(0, 4),
)
def test_any_keys_in_any_chunks(
    picked: list[int],
    chunk_size: int | None,
    how: Literal["vmap", "loop"],
    num_steps: int,
) -> None:
    svi = variational()
    ensemble = Ensemble(svi, chunk_size=chunk_size, map=how, progress_bar=False)
    state, losses = ensemble.run(KEYS[torch.tensor(picked)], num_steps, *DATA)
    assert losses.shape == (num_steps, len(picked))
    i = len(picked) - 1
    assert_member_is_run(state, i, svi.run(KEYS[picked[i]], num_steps, *DATA).state, atol=1e-6)


class Shrunk(Module):
    """A line whose prior scale is a tensor of the member's own."""

    width: Tensor
    slope = PyroSample(lambda self: dist.Normal(0.0, self.width))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = self.slope * x[:, 0]
        with pyro.plate("data", len(x)):
            return pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


def of_settings(setting: dict[str, Tensor]) -> SVI[[Tensor, Tensor | None]]:
    model = Shrunk(setting["width"])
    optim = torchopt.chain(torchopt.adam(1.0), scale(setting["rate"]))
    return SVI(model, AutoNormal(model), optim)


@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize("chunk_size", [2, None])
def test_members_with_rates_priors_and_data_of_their_own(
    how: Literal["vmap", "loop"], chunk_size: int | None
) -> None:
    x, y = DATA
    rows = random.randint(random.key(1), 3, len(x), low=0, high=len(x))  # bootstraps
    own = {"rate": torch.tensor([0.1, 0.02, 0.05]), "width": torch.tensor([0.01, 1.0, 10.0])}
    ensemble = Ensemble(
        of_settings, members=own, in_dims=0, chunk_size=chunk_size, map=how, progress_bar=False
    )
    state = ensemble.run(KEYS[:3], 60, x[rows], y[rows]).state
    for i in range(3):
        svi = of_settings({name: value[i] for name, value in own.items()})
        alone = svi.run(KEYS[i], 60, x[rows[i]], y[rows[i]]).state
        assert_member_is_run(state, i, alone, atol=1e-5)
        again = ensemble.svi_of(state, i).run(KEYS[i], 60, x[rows[i]], y[rows[i]]).state
        assert_member_is_run(state, i, again, atol=1e-5)
