"""Networks with BatchNorm train and predict: their buffers are a part of the state."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor, nn

from purepyro import Ensemble, Module, init, init_state, lift, random, reduce_state
from purepyro._errors import MutationError
from purepyro.infer import (
    SVI,
    AutoNormal,
    LogLikelihood,
    Predictive,
    RenyiELBO,
    SVIState,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    load,
    save,
)
from purepyro.infer.losses._elbo import LossOfParts

KEY = random.key(0)
X = 3.0 + 2.0 * random.normal(random.key(1), 60, 2)
Y = torch.sin(X[:, 0]) + 0.5 * X[:, 1]
MEAN, COUNT = "net.1.running_mean", "net.1.num_batches_tracked"


class Regression(Module):
    net: nn.Module

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean: Tensor = self.net(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


class EMA(nn.Module):
    """A buffer that is assigned anew, not written into."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


def norm() -> nn.Sequential:
    # Without a bias before the norm, which would have no gradient but rounding's.
    with random.keyed(random.key(2)):
        return nn.Sequential(
            nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)
        )


def nothing(x: Tensor, y: Tensor | None = None) -> None:
    pass


def fit(net: nn.Module) -> SVI[[Tensor, Tensor | None]]:
    return SVI(Regression(net), nothing, torchopt.adam(0.03))


def test_statistics_are_state_in_and_state_out() -> None:
    net = norm()
    svi = fit(net)
    state = svi.init(KEY, X, Y)
    assert torch.equal(state.buffers[MEAN], torch.zeros(8))
    after, _ = svi.step(state, X, Y)
    assert torch.equal(state.buffers[MEAN], torch.zeros(8))
    hidden = X @ state.params["net.0.weight"].mT
    torch.testing.assert_close(after.buffers[MEAN], 0.1 * hidden.mean(0))
    assert int(after.buffers[COUNT]) == 1
    assert torch.equal(net.get_buffer("1.running_mean"), torch.zeros(8))
    assert not any(buffer.requires_grad for buffer in after.buffers.values())


def test_train_then_predict_in_evaluation_mode() -> None:
    net = norm()
    result = fit(net).run(KEY, 300, X, Y)
    assert int(result.state.buffers[COUNT]) == 300
    predictive = Predictive(
        Regression(net), params=result.state.params, num_samples=2, buffers=result.state.buffers
    )
    with pytest.raises(MutationError, match=r"net\.1\.running_mean.*\.eval\(\)"):
        predictive(KEY, X)
    net.eval()
    drawn = predictive(KEY, X)["y"].mean(0)
    assert (drawn - Y).square().mean().sqrt() < 0.5  # the noise alone gives 0.3 / sqrt(2)
    # A row's prediction does not depend on its neighbours, and is that of the trained network.
    alone = predictive(KEY, X[:1])["y"]
    torch.testing.assert_close(alone, predictive(KEY, X)["y"][:, :1], atol=1.5, rtol=0)
    density = LogLikelihood(Regression(net), result.state.params, {"unused": X})
    assert density is not None


def test_a_buffer_that_is_assigned_anew() -> None:
    for training in (True, False):
        net = nn.Sequential(EMA(), nn.Linear(2, 1)).train(training)
        kept = net.get_buffer("0.mean")
        state = fit(net).run(KEY, 5, X, Y).state
        expected = (1 - 0.9**5) * X.mean(0) if training else torch.zeros(2)
        torch.testing.assert_close(state.buffers["net.0.mean"], expected)
        assert net.get_buffer("0.mean") is kept
        assert torch.equal(kept, torch.zeros(2))


def test_networks_that_a_plain_model_registers() -> None:
    net = nn.Sequential(EMA(), norm())
    kept = {name: own.clone() for name, own in net.named_buffers()}

    def model(x: Tensor, y: Tensor) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(net(x).squeeze(-1), 0.3), obs=y)

    state = SVI(model, lambda x, y: None, torchopt.adam(0.03)).run(KEY, 7, X, Y).state
    assert int(state.buffers["net$$$1.1.num_batches_tracked"]) == 7
    torch.testing.assert_close(state.buffers["net$$$0.mean"], (1 - 0.9**7) * X.mean(0))
    assert all(torch.equal(own, kept[name]) for name, own in net.named_buffers())


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(num_particles=3),
        TraceMeanField_ELBO(num_particles=3),
        TraceGraph_ELBO(num_particles=3),
        RenyiELBO(num_particles=3),
        Trace_ELBO(num_particles=3, chunk_size=2),
    ],
)
def test_particles_have_a_state_each_and_leave_their_mean(loss: LossOfParts) -> None:
    model = lift(norm(), dist.Normal(0.0, 1.0))

    def observed(x: Tensor) -> None:
        mean = model(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=x[:, 0])

    guide = AutoNormal(observed)
    state = SVI(observed, guide, torchopt.adam(0.01), Trace_ELBO()).init(KEY, X)
    after = loss.loss_with_state(observed, guide, state.params, KEY, state.buffers, X)[1]
    single = Trace_ELBO()
    each = [
        single.loss_with_state(
            observed, guide, state.params, random.fold_in(KEY, i), state.buffers, X
        )[1]
        for i in range(3)
    ]
    stacked = {name: torch.stack([one[name] for one in each]) for name in after}
    expected = reduce_state(stacked, "mean")
    for name, buffer in after.items():
        torch.testing.assert_close(buffer, expected[name])


def test_minibatches_and_a_checkpoint(tmp_path: Path) -> None:
    svi, batches = fit(norm()), [(X[i : i + 20], Y[i : i + 20]) for i in (0, 20, 40)]
    whole = svi.fit(KEY, batches, data_size=None, epochs=2).state
    half = svi.fit(KEY, batches, data_size=None).state
    save(tmp_path / "half.pt", half)
    loaded = load(tmp_path / "half.pt", like=svi.init(random.key(9), *batches[0]))
    again = svi.fit_from(loaded, batches, data_size=None).state
    assert int(again.buffers[COUNT]) == 6
    for name, buffer in whole.buffers.items():
        assert torch.equal(buffer, again.buffers[name])


def resnet() -> nn.Module:
    """A small residual network with BatchNorm."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.norm(self.conv(x)))

    with random.keyed(random.key(5)):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            Block(),
            Block(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 1),
        )


IMAGES = random.normal(random.key(6), 24, 1, 6, 6)
LABELS = IMAGES.mean((1, 2, 3)) * 3


def test_a_residual_network_trains_alone_and_as_an_ensemble() -> None:
    net = resnet()
    svi = SVI(Regression(net), nothing, torchopt.adam(0.02))
    alone = svi.run(random.key(7), 40, IMAGES, LABELS)
    assert alone.losses[-1] < 0.3 * alone.losses[0]
    keys = random.split(random.key(8), 3)
    states, losses = {}, {}
    state = Ensemble(svi).init(keys, IMAGES, LABELS)
    ways: tuple[Literal["vmap"], Literal["loop"]] = ("vmap", "loop")
    for how in ways:
        ensemble = Ensemble(svi, map=how)
        state, losses[how] = ensemble.run(keys, 5, IMAGES, LABELS)
        states[how] = state.svi.buffers
        assert state.svi.buffers["net.1.running_mean"].shape == (3, 4)
    torch.testing.assert_close(losses["vmap"], losses["loop"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(states["vmap"], states["loop"], rtol=1e-3, atol=1e-3)
    net.eval()
    ensemble = Ensemble(svi)
    prediction = ensemble.predictive(state).predict(KEY, IMAGES)
    assert prediction.mean.shape == (24,)
    member = ensemble.member(state, 1)
    single = Predictive(svi.model, params=member.params, num_samples=1, buffers=member.buffers)
    assert single(KEY, IMAGES)["y"].shape == (1, 24)


@pytest.mark.compiled
@pytest.mark.slow
def test_compiled_runs_are_eager_runs() -> None:
    net = norm()
    eager, compiled = (
        SVI(Regression(net), nothing, torchopt.adam(0.03), compiled=how).run(KEY, 64, X, Y)
        for how in (False, True)
    )
    torch.testing.assert_close(eager.losses, compiled.losses, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(eager.state.buffers, compiled.state.buffers, rtol=1e-3, atol=1e-3)
    assert int(compiled.state.buffers[COUNT]) == 64


def test_a_skipped_step_leaves_the_buffers() -> None:
    svi = SVI(Regression(norm()), nothing, torchopt.adam(0.03), on_nonfinite="skip")
    state = svi.init(KEY, X, Y)
    after, _ = svi.step(state, X.index_fill(0, torch.tensor(0), torch.inf), Y)
    for name, buffer in state.buffers.items():
        assert torch.equal(buffer, after.buffers[name])


def test_two_networks_with_one_name_are_refused() -> None:
    class Other(Module):
        net: nn.Module

        def forward(self, x: Tensor, y: Tensor | None = None) -> None:
            self.net(x)

    def bare() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1))

    svi = SVI(Regression(bare()), Other(nn.BatchNorm1d(2, affine=False)), torchopt.adam(0.1))
    assert len(svi.init(KEY, X, Y).buffers) == 6  # net.0.running_mean and net.running_mean
    svi = SVI(Regression(bare()), Other(nn.Sequential(nn.BatchNorm1d(2, affine=False))), svi.optim)
    with pytest.raises(ValueError, match=r"buffer 'net\.0\.num_batches_tracked'.*Rename"):
        svi.init(KEY, X, Y)


def test_no_networks_no_buffers() -> None:
    svi = SVI(nothing, nothing, torchopt.adam(0.1))
    state = svi.init(KEY, X)
    assert state.buffers == {}
    assert SVIState(*state[:4]).buffers == {}
    model = lift(norm())
    assert sorted(init_state(model)) == sorted(
        f"1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    )
    assert "1.running_mean" not in init(model, KEY)
