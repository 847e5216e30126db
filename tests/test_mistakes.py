"""Ordinary mistakes, each answered by what is wrong and what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer
import pytest
import torch
import torchopt
from torch import Tensor, nn

from purepyro import (
    Ensemble,
    Lifted,
    Module,
    PyroParam,
    PyroSample,
    apply,
    describe,
    lift,
    log_density,
    random,
)
from purepyro._errors import (
    DeclarationError,
    DtypeError,
    FrozenError,
    PurepyroError,
    SupportError,
)
from purepyro.infer import SVI, AutoDelta, AutoNormal, Predictive, Trace_ELBO, TraceGraph_ELBO

X = torch.linspace(-1.0, 1.0, 8)
Y = 2 * X + 1
ADAM = torchopt.adam(1e-2)


class Line(Module):
    slope = PyroSample(dist.Normal(0.0, 1.0))
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean, sigma = self.slope * x, self.sigma
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)
        return mean


class Counts(Module):
    rate = PyroSample(dist.LogNormal(0.0, 1.0))

    def forward(self, y: Tensor) -> None:
        rate = self.rate
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Poisson(rate), obs=y)


class Coin(Module):
    logit = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, y: Tensor) -> None:
        logit = self.logit
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=logit), obs=y)


MODEL = Line()
GUIDE = AutoNormal(MODEL)


def fit(model: Callable[..., object], *args: object, key: random.Key) -> Tensor:
    """The losses of a short fit."""
    return SVI(model, AutoNormal(model), ADAM).run(key, 2, *args).losses


# --- Habits from Pyro -------------------------------------------------------------------------


def test_data_in_the_place_of_a_state() -> None:
    step: Any = SVI(MODEL, GUIDE, ADAM).step
    with pytest.raises(DeclarationError, match=r"SVI\.step got float32\[8\] as its state.*svi\.in"):
        step(X, Y)
    evaluate: Any = SVI(MODEL, GUIDE, ADAM).evaluate
    with pytest.raises(DeclarationError, match=r"svi\.evaluate\(state, \*args\)"):
        evaluate(X, Y)


@pytest.mark.parametrize("what", ["run_from", "iterate", "fit_from"])
def test_a_result_in_the_place_of_its_state(what: str, key: random.Key) -> None:
    svi: Any = SVI(MODEL, GUIDE, ADAM)
    result = svi.run(key, 1, X, Y)
    more: dict[str, Any] = {"run_from": {}, "iterate": {}, "fit_from": {"data_size": 8}}
    args = {"run_from": (1, X, Y), "iterate": (X, Y), "fit_from": ([(X, Y)],)}[what]
    with pytest.raises(DeclarationError, match=rf"SVI\.{what} got SVIRunResult.*svi\.init"):
        getattr(svi, what)(result, *args, **more[what])


def test_a_loss_of_pyro() -> None:
    loss: Any = pyro.infer.Trace_ELBO()
    with pytest.raises(DeclarationError, match=r"of Pyro.*purepyro\.infer\.Trace_ELBO\(\)"):
        SVI(MODEL, GUIDE, ADAM, loss)


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceGraph_ELBO])
def test_a_class_of_losses(loss: type) -> None:
    given: Any = loss
    with pytest.raises(DeclarationError, match=rf"a class.*Write {loss.__name__}\(\)"):
        SVI(MODEL, GUIDE, ADAM, given)


def test_no_loss_at_all() -> None:
    loss: Any = "elbo"
    with pytest.raises(DeclarationError, match=r"the loss 'elbo'.*Write for example Trace_ELBO"):
        SVI(MODEL, GUIDE, ADAM, loss)


def test_declarations_in_init() -> None:
    class Late(Module):
        def __init__(self, late: object) -> None:
            super().__init__()
            made: Any = self
            made.w = late

        def forward(self) -> None: ...

    for late, match in (
        (PyroSample(dist.Normal(0.0, 1.0)), r"Late\.w was assigned a PyroSample.*in the class bo"),
        (PyroParam(torch.ones(())), r"Late\.w was assigned a PyroParam.*`w = PyroParam\(\.\.\.\)`"),
        (nn.Parameter(torch.ones(2)), r"Late\.w was assigned a torch.nn.Parameter.*PyroParam\(in"),
        (nn.Linear(1, 1), r"Late\.w was assigned a Linear.*`w: Linear`"),
        (3, r"Late\.w was assigned, but a Module never changes"),
    ):
        with pytest.raises(FrozenError, match=match):
            Late(late)


# --- Slips ------------------------------------------------------------------------------------


def test_model_and_guide_in_the_wrong_order(key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=r"the guide AutoNormal as its model.*SVI\(model, "):
        SVI(GUIDE, MODEL, ADAM)

    def guide(x: Tensor, y: Tensor) -> None:
        pyro.sample("slope", dist.Normal(0.0, 1.0))
        pyro.sample("sigma", dist.LogNormal(0.0, 1.0))

    def model(x: Tensor, y: Tensor) -> None:
        MODEL(x, y)
        pyro.sample("other", dist.Normal(0.0, 1.0))

    match = r"guide observes data, \['y'\].*SVI\(model, guide"
    for first, second in ((guide, MODEL), (guide, model)):
        with pytest.raises(DeclarationError, match=match):
            SVI(first, second, ADAM).init(key, X, Y)


def test_key_and_number_of_steps_in_the_wrong_order(key: random.Key) -> None:
    run: Any = SVI(MODEL, GUIDE, ADAM).run
    with pytest.raises(DeclarationError, match=r"svi\.run\(key, num_steps, \*args\), with ke"):
        run(100, key, X, Y)


def test_a_distribution_without_pyrosample() -> None:
    with pytest.raises(DeclarationError, match=r"M\.slope is a Normal.*`slope = PyroSample"):

        class M(Module):
            slope = dist.Normal(0.0, 1.0)


def test_a_field_without_annotation() -> None:
    class Net(Module):
        width = 16

    make: Any = Net
    with pytest.raises(DeclarationError, match=r"Net\(width=\.\.\.\).*`width: int = \.\.\.`"):
        make(width=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        make(widht=4)


# --- Data that do not fit ---------------------------------------------------------------------


@pytest.mark.parametrize("model", [Counts(), Coin()], ids=["poisson", "bernoulli"])
def test_values_outside_the_support_name_the_site(
    model: Callable[..., object], key: random.Key
) -> None:
    with pytest.raises(SupportError, match=r"'y'"):
        fit(model, -Y - 5, key=key)
    with pytest.raises(SupportError, match=r"site 'y' \((Poisson|Bernoulli)\), float32\[8\]"):
        log_density(model, {}, _latent(model), -Y)


def _latent(model: object) -> dict[str, Tensor]:
    return (
        {"rate": torch.tensor(1.0)} if isinstance(model, Counts) else {"logit": torch.tensor(0.0)}
    )


def test_booleans_where_floats_are_needed(key: random.Key) -> None:
    match = r"observed site 'y' has the value bool\[8\].*Bernoulli.*obs=y\.float\(\)"
    with pytest.raises(DtypeError, match=match):
        fit(Coin(), Y > 0, key=key)
    assert fit(Coin(), (Y > 0).float(), key=key).isfinite().all()


def test_float64_data_with_float32_parameters(key: random.Key) -> None:
    class Net(Module):
        net: Lifted[[Tensor], Tensor]

        def forward(self, x: Tensor, y: Tensor) -> None:
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(self.net(x).squeeze(-1), 1.0), obs=y)

    model = Net(lift(nn.Linear(1, 1)))
    svi = SVI(model, AutoDelta(model), ADAM)
    x, y = X.double().unsqueeze(-1), Y.double()
    match = r"test_mistakes\.py:\d+: `.*self\.net\(x\).*argument 0 is float64\[8, 1\].*x\.float\(\)"
    with pytest.raises(DtypeError, match=match):
        svi.run(key, 1, x, y)
    assert svi.run(key, 1, x.float(), y.float()).losses.isfinite().all()


# --- Under vmap -------------------------------------------------------------------------------


def test_a_setting_that_is_read(key: random.Key) -> None:
    def make_svi(setting: dict[str, Any]) -> SVI[[Tensor, Tensor | None]]:
        return SVI(MODEL, GUIDE, torchopt.adam(setting["rate"]))

    ensemble = Ensemble(make_svi, members={"rate": torch.tensor([0.1, 0.2])})
    match = r"(?s)make_svi asks a member's setting.*test_mistakes\.py.*infer\.scale.*scale\(rate\)"
    with pytest.raises(DeclarationError, match=match):
        ensemble.run(random.split(key, 2), 1, X, Y)


@pytest.mark.parametrize(
    "run",
    [
        lambda model, key: SVI(model, AutoNormal(model), ADAM, Trace_ELBO(2)).run(key, 1, Y),
        lambda model, key: Predictive(model, num_samples=2)(key, Y),
        lambda model, key: torch.vmap(lambda k: apply(model, {}, k, Y))(random.split(key, 2)),
    ],
    ids=["particles", "predictive", "vmap"],
)
def test_a_branch_on_a_value(run: Callable[[Any, random.Key], Any], key: random.Key) -> None:
    class Branches(Module):
        z = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self, y: Tensor) -> Tensor:
            scale = 1.0 if self.z > 0 else 2.0
            return pyro.sample("y", dist.Normal(self.z, scale).expand([8]).to_event(1), obs=y)

    with pytest.raises(PurepyroError, match=r"`scale = 1\.0 if self\.z > 0") as caught:
        run(Branches(), key)
    assert "file an issue" not in str(caught.value)


# --- Reprs ------------------------------------------------------------------------------------


def test_reprs_are_short_and_without_addresses(key: random.Key) -> None:
    svi = SVI(MODEL, GUIDE, ADAM)
    result = svi.run(key, 2, X, Y)
    ensemble = Ensemble(svi)
    several = ensemble.run(random.split(key, 3), 2, X, Y)
    shown = [svi, result, result.state, ensemble, several, several.state, GUIDE]
    predictive = Predictive(MODEL, guide=GUIDE, params=result.state.params, num_samples=2)
    for each in (*shown, predictive):
        assert " at 0x" not in repr(each)
        assert len(repr(each)) < 400
    assert repr(svi).startswith("SVI(model=Line(), guide=AutoNormal(model=Line()), optim=")
    assert repr(result.state).startswith("SVIState(step=2, params={'locs.slope': float32[]")
    assert repr(result).startswith("SVIRunResult(2 steps, loss ")
    assert "EnsembleState(3 of SVIState" in repr(several)
    for each in (result, several):
        assert each._repr_html_().startswith("<table><caption>")
    assert "<td style='text-align: left'>slope</td>" in describe(MODEL)._repr_html_()
