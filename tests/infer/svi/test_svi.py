"""SVI as a pure state machine: exact posteriors, purity, resuming, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optree
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor, nn

from models import regression, regression_data
from purepyro import Module, PyroParam, PyroSample, random, replace
from purepyro._errors import (
    DeclarationError,
    KeyReuseError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
)
from purepyro.infer import SVI, AutoNormal, SVIState, Trace_ELBO, TraceEnum_ELBO

Y = torch.tensor([1.0, 2.0, 6.0])


def normal_normal(y: Tensor) -> None:
    """A conjugate model: the posterior of ``loc`` is N(sum(y) / (n + 1), 1 / (n + 1))."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def tree(state: SVIState) -> Any:  # noqa: ANN401
    """To type checkers optree's trees are of its own kinds only."""
    return state


def _svi(rate: float = 0.05) -> SVI[[Tensor]]:
    return SVI(normal_normal, AutoNormal(normal_normal), torchopt.adam(rate))


def test_the_exact_posterior_and_evidence(key: random.Key) -> None:
    """One draw a step, 1,500 steps; mean within .02, sd within .02, loss within .01."""
    svi = SVI(normal_normal, AutoNormal(normal_normal), torchopt.adam(0.05))
    state, losses = svi.run(key, 500, Y)
    slow = SVI(normal_normal, svi.guide, torchopt.adam(0.005), Trace_ELBO(num_particles=8))
    state = slow.init(key, Y)._replace(params=state.params)
    for _ in range(1_000):
        state, _ = slow.step(state, Y)
    assert losses.shape == (500,)
    scale = torch.nn.functional.softplus(state.params["scales.loc"])
    torch.testing.assert_close(state.params["locs.loc"], torch.tensor(9 / 4), atol=0.02, rtol=0)
    torch.testing.assert_close(scale, torch.tensor(0.5), atol=0.02, rtol=0)
    covariance = torch.eye(3) + 1.0
    evidence = dist.MultivariateNormal(torch.zeros(3), covariance).log_prob(Y)
    loss = SVI(normal_normal, svi.guide, svi.optim, Trace_ELBO(num_particles=2_000)).evaluate(
        state, Y
    )
    torch.testing.assert_close(loss, -evidence, atol=0.01, rtol=0)


def test_a_step_is_pure(key: random.Key) -> None:
    svi = _svi()
    state = svi.init(key, Y)
    copy = optree.tree_map(torch.clone, tree(state))
    first, again = svi.step(state, Y), svi.step(state, Y)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(state, copy, rtol=0, atol=0)
    assert first[0].step.item() == 1
    assert torch.equal(svi.evaluate(state, Y), first[1])


def test_params_are_complete_after_init(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    state = SVI(model, AutoNormal(model), torchopt.adam(0.01)).init(key, x, y)
    sites = ["linear.weight", "linear.bias", "sigma"]
    expected = {f"{kind}.{site}" for kind in ("locs", "scales") for site in sites}
    assert set(state.params) == expected | {"linear.scale"}
    new, _ = SVI(model, AutoNormal(model), torchopt.adam(0.01)).step(state, x, y)
    assert all(not torch.equal(new.params[name], value) for name, value in state.params.items())


def test_saving_as_data_and_going_on(key: random.Key, tmp_path: Path) -> None:
    svi = _svi()
    state, _ = svi.run(key, 10, Y)
    flat = optree.tree_leaves(tree(state))
    torch.save(flat, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    structure: Any = optree.tree_structure(tree(svi.init(random.key(9), Y)))
    resumed: SVIState = structure.unflatten(loaded)
    for _ in range(10):
        resumed, _ = svi.step(resumed, Y)
    torch.testing.assert_close(resumed, svi.run(key, 20, Y).state, rtol=0, atol=0)


def test_a_hand_written_guide_is_a_module(key: random.Key) -> None:
    class Guide(Module):
        at = PyroParam(torch.tensor(0.0))
        loc = PyroSample(lambda self: dist.Normal(self.at, 0.5))

        def forward(self, y: Tensor) -> Tensor:
            return self.loc

    # 400 steps of 50 draws each; the optimum is 9 / 4.
    svi = SVI(normal_normal, Guide(), torchopt.adam(0.05), Trace_ELBO(num_particles=50))
    state, losses = svi.run(key, 400, Y)
    assert set(state.params) == {"at"}
    torch.testing.assert_close(state.params["at"], torch.tensor(9 / 4), atol=0.1, rtol=0)
    assert losses[-50:].mean() < losses[:50].mean()


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_plain_pyro_functions_share_parameters_by_name(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        shared = pyro.param("shared", torch.tensor(1.0))
        pyro.sample("z", dist.Normal(shared, 1.0))

    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("shared", torch.tensor(1.0)), 1.0))

    state = SVI(model, guide, torchopt.sgd(0.1)).init(key, Y)
    assert set(state.params) == {"shared"}


def test_model_and_guide_draw_the_same_subsample(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", 100, subsample_size=5) as index:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[index])

    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    y = torch.linspace(-3.0, 3.0, 100)
    state = svi.init(key, y)
    assert state.params["locs.z"].shape == (100,)
    new, _ = svi.step(state, y)
    moved = (new.params["locs.z"] != state.params["locs.z"]).sum().item()
    assert moved == 5


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_an_exception_in_a_run_leaves_nothing_behind(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if len(y) > 3:
            raise ArithmeticError("on purpose")

    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    state = svi.init(key, Y)
    with pytest.raises(ArithmeticError):
        svi.step(state, torch.zeros(4))
    assert torch.isfinite(svi.step(state, Y)[1])


def test_zero_steps(key: random.Key) -> None:
    state, losses = _svi().run(key, 0, Y)
    assert losses.shape == (0,)
    assert state.step.item() == 0


def test_a_run_says_nothing_when_no_terminal_looks_on(
    key: random.Key, capfd: pytest.CaptureFixture[str]
) -> None:
    _svi().run(key, 3, Y)
    assert capfd.readouterr().err == ""
    SVI(normal_normal, AutoNormal(normal_normal), torchopt.adam(0.1), progress_bar=True).run(
        key, 3, Y
    )
    assert "SVI" in capfd.readouterr().err


# Bad input


def test_a_guide_without_a_site(key: random.Key) -> None:
    with pytest.raises(MissingNameError, match=r"no site for the model's latent \['loc'\]"):
        SVI(normal_normal, lambda y: None, torchopt.adam(0.1)).init(key, Y)


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_a_guide_without_a_discrete_site(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    with pytest.raises(MissingNameError, match=r"no site for the model's latent \['k'\]"):
        SVI(model, lambda: None, torchopt.adam(0.1)).init(key)
    SVI(model, lambda: None, torchopt.adam(0.1), TraceEnum_ELBO()).init(key)


def test_a_guide_with_a_site_too_many(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("lok", dist.Normal(0.0, 1.0))

    with pytest.raises(UnknownNameError, match=r"sites \['lok'\], which are not latent.*is_aux"):
        SVI(normal_normal, guide, torchopt.adam(0.1)).init(key, Y)


def test_a_guide_of_another_shape(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ShapeError, match=r"'loc' is float32\[2\].*exactly \[\]"):
        SVI(normal_normal, guide, torchopt.adam(0.1)).init(key, Y)


def test_one_parameter_name_in_two_modules(key: random.Key) -> None:
    class Model(Module):
        w = PyroParam(torch.tensor(1.0))

        def forward(self) -> Tensor:
            return pyro.sample("z", dist.Normal(self.w, 1.0))

    class Guide(Module):
        w = PyroParam(torch.tensor(1.0))

        def forward(self) -> Tensor:
            return pyro.sample("z", dist.Normal(self.w, 1.0))

    with pytest.raises(ShapeError, match=r"both have a parameter 'w'.*Rename"):
        SVI(Model(), Guide(), torchopt.adam(0.1)).init(key)


def test_an_optimiser_that_is_none() -> None:
    with pytest.raises(DeclarationError, match=r"no \(init, update\) pair.*torchopt"):
        SVI(normal_normal, AutoNormal(normal_normal), torch.optim.Adam)  # type: ignore[arg-type]  # pyright: ignore


def test_particle_counts() -> None:
    with pytest.raises(ValueError, match=r"num_particles.*>= 1"):
        Trace_ELBO(num_particles=0)


def test_a_key_used_for_two_runs(key: random.Key) -> None:
    with random.forbid_reuse():
        _svi().run(key, 2, Y)
        with pytest.raises(KeyReuseError, match=r"SVI\.init"):
            _svi().run(key, 2, Y)


class Coder(Module):
    """Model and guide as methods of one Module, with a parameter that both read."""

    enc: nn.Linear
    dec: nn.Linear
    noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.enc(x), self.noise).to_event(1))


class Scale(Module):
    """A part that model and guide may share."""

    value = PyroParam(torch.tensor(1.0), constraint=constraints.positive)


class Half(Module):
    """Only the model, of the parts that it is given."""

    dec: nn.Linear
    scale: Scale

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), self.scale.value).to_event(1), obs=x)


class OtherHalf(Module):
    """Only the guide."""

    enc: nn.Linear
    dec: nn.Linear
    scale: Scale

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.enc(x), self.scale.value).to_event(1))


def test_methods_of_one_module_share_their_parameters(key: random.Key) -> None:
    coder, x = Coder(nn.Linear(3, 2), nn.Linear(2, 3)), torch.ones(5, 3)
    for model in (coder.model, poutine.block(coder.model, hide=["none"])):
        svi = SVI(model, coder.guide, torchopt.adam(0.1), Trace_ELBO())
        state = svi.init(key, x)
        names = ["enc.weight", "enc.bias", "dec.weight", "dec.bias", "noise"]
        assert sorted(state.params) == sorted(names)
        new, _ = svi.step(state, x)
        for name in names:
            assert not torch.equal(new.params[name], state.params[name])


def test_modules_share_what_both_hold(key: random.Key) -> None:
    enc, dec, scale, x = nn.Linear(3, 2), nn.Linear(2, 3), Scale(), torch.ones(5, 3)
    svi = SVI(Half(dec, scale), OtherHalf(enc, dec, scale), torchopt.adam(0.1), Trace_ELBO())
    assert sorted(svi.init(key, x).params) == [
        *("dec.bias", "dec.weight", "enc.bias", "enc.weight", "scale.value"),
    ]
    for guide in (OtherHalf(enc, nn.Linear(2, 3), scale), OtherHalf(enc, dec, Scale())):
        svi = SVI(Half(dec, scale), guide, torchopt.adam(0.1), Trace_ELBO())
        with pytest.raises(ShapeError, match=r"both have a parameter '(dec|scale)\..*Rename.*same"):
            svi.init(key, x)
    positive = PyroParam(torch.ones(3), constraint=constraints.positive)
    changed = replace(OtherHalf(enc, dec, scale), {"dec.bias": positive})
    svi = SVI(Half(dec, scale), changed, torchopt.adam(0.1), Trace_ELBO())
    with pytest.raises(ShapeError, match=r"both have a parameter 'dec\.bias'"):
        svi.init(key, x)
