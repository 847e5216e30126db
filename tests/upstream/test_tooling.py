"""Serialisation, devices, tools and transforms, ported in spirit from Pyro's ``tests/nn``.

Row numbers are those of the table in ``docs/migration.md``.
"""

from __future__ import annotations

import copy
import io
import pickle
from typing import assert_type

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import JitTrace_ELBO
from pyro.infer import Trace_ELBO as TraceELBOOfPyro
from pyro.infer.autoguide import AutoNormal as AutoNormalOfPyro
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    constrain,
    init,
    log_density,
    random,
    replace,
    to,
    trace,
    unconstrain,
)
from purepyro.infer import Trace_ELBO


class Regression(Module):
    """Has a bit of everything: a network, a learned scale, random weights, data in a plate."""

    net: nn.Linear
    size: int
    scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
    noise = PyroSample(dist.LogNormal(0.0, 0.5))

    @PyroParam
    def shift(self) -> Tensor:
        return torch.full((self.size,), 0.5)

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(self.shift, self.scale).to_event(1)

    @PyroSample
    def norm(self) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(self.weight)
        return norm

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        hidden: Tensor = torch.tanh(self.net(x))
        noise = self.noise * (1 + 0 * self.norm)  # read before the plate, so not local to it
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(hidden @ self.weight, noise), obs=y)


X = torch.linspace(-1.0, 1.0, 15).reshape(5, 3)
Y = torch.linspace(-1.0, 1.0, 5)
NAMES = {"net.weight", "net.bias", "scale", "shift"}
LATENT = {"weight", "noise"}


def regression() -> Regression:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Regression(nn.Linear(3, 2), 2)


# ---------------------------------------------------------------------------- rows 39, 40 and 41


def test_row_39_params_are_what_is_saved(key: random.Key) -> None:
    model = regression()
    trained = {name: value + 0.1 for name, value in init(model, key).items()}
    file = io.BytesIO()
    torch.save(trained, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert set(loaded) == NAMES
    assert all(loaded[name].equal(trained[name]) for name in NAMES)
    assert apply(model, loaded, key, X).equal(apply(model, trained, key, X))


@pytest.mark.parametrize("change", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_row_39_models_can_be_pickled_and_copied(change: object, key: random.Key) -> None:
    model = replace(regression(), {"noise": PyroParam(torch.tensor(3.0))})
    assert callable(change)
    other = change(model)
    assert isinstance(other, Regression)
    assert other.net is not model.net
    assert repr(other) == repr(model)
    params = init(model, key)
    again = init(other, key)
    assert set(again) == NAMES | {"noise"}
    assert all(again[name].equal(value) for name, value in params.items())
    assert apply(other, again, key, X).equal(apply(model, params, key, X))


def test_row_39_whole_model_by_torch_save(key: random.Key) -> None:
    model = regression()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert isinstance(loaded, Regression)
    assert apply(loaded, init(loaded, key), key, X).equal(apply(model, init(model, key), key, X))


def test_row_40_params_are_complete_before_the_first_run(key: random.Key) -> None:
    fresh = init(regression(), key)
    used = regression()
    apply(used, init(used, key), key, X)
    assert set(fresh) == set(init(used, key)) == NAMES


def test_row_40_loading_is_strict(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    missing = {name: value for name, value in params.items() if name != "net.bias"}
    with pytest.raises(LookupError, match=r"no 'net\.bias'"):
        apply(model, missing, key, X)
    with pytest.raises(LookupError, match=r"'net\.bia'.*Did you mean 'net\.bias'"):
        apply(model, {**params, "net.bia": params["net.bias"]}, key, X)
    with pytest.raises(ValueError, match=r"'net\.weight' has the shape \[3, 2\].*\[2, 3\]"):
        apply(model, {**params, "net.weight": params["net.weight"].mT}, key, X)


def test_row_41_params_trained_by_pyro_are_ours(key: random.Key) -> None:
    model = regression()
    svi = pyro.infer.SVI(
        model,
        AutoNormalOfPyro(model),
        pyro.optim.Adam({"lr": 0.1}),
        TraceELBOOfPyro(),
    )
    for _ in range(3):
        svi.step(X, Y)
    store = pyro.get_param_store()
    of_model = {name: store[name].detach() for name in store if name in NAMES}
    assert set(of_model) == NAMES
    params = unconstrain(model, of_model)
    assert not params["scale"].equal(init(model, key)["scale"])
    tr = poutine.trace(model).get_trace(X, Y)
    latents = {name: torch.as_tensor(tr.nodes[name]["value"]).detach() for name in LATENT}
    torch.testing.assert_close(
        log_density(model, params, latents, X, Y), torch.as_tensor(tr.log_prob_sum()).detach()
    )


# ---------------------------------------------------------------------------- rows 42 and 43

PRIORS = [
    dist.Normal(0.0, 1.0),
    dist.Normal(0.0, 1.0).expand([2, 3]).to_event(1),
    dist.Normal(torch.zeros(2), 1.0).mask(torch.tensor([True, False])),
    dist.LogNormal(0.0, 1.0),
    dist.HalfCauchy(1.0),
    dist.Gamma(2.0, 3.0),
    dist.Beta(2.0, 3.0),
    dist.Dirichlet(torch.ones(3)),
    dist.Uniform(-1.0, 1.0),
    dist.StudentT(3.0),
    dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    dist.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2)),
    dist.TransformedDistribution(
        dist.Normal(torch.zeros(2), 1.0),
        [dist.transforms.AffineTransform(torch.tensor(1.0), torch.tensor(2.0))],
    ),
    dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2) / 2), dist.Normal(torch.zeros(2), torch.ones(2))
    ),
    dist.LKJCholesky(2, torch.tensor(1.0)),
    dist.Delta(torch.tensor(1.0)),
]


class OneSite(Module):
    """A random variable, whose prior the tests replace."""

    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        return self.z


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_row_42_priors_follow_the_dtype(prior: dist.TorchDistribution, key: random.Key) -> None:
    model = replace(OneSite(), {"z": PyroSample(prior)})
    single, double = apply(model, {}, key), apply(to(model, torch.float64), {}, key)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert single.shape == double.shape
    density = log_density(to(model, torch.float64), {}, {"z": double})
    assert density.dtype == torch.float64
    expected = prior.log_prob(double.float()).sum()
    torch.testing.assert_close(density.float(), expected, rtol=1e-3, atol=1e-3)


def test_row_42_a_whole_model_in_double(key: random.Key) -> None:
    model = regression()
    double = to(model, torch.float64)
    params = init(double, key)
    assert {value.dtype for value in params.values()} == {torch.float64}
    y, record = trace(double, params, key, X.double())
    assert y.dtype == torch.float64
    assert {value.dtype for value in record.values.values()} == {torch.float64}
    assert model.net.weight.dtype == torch.float32
    assert {value.dtype for value in init(model, key).values()} == {torch.float32}


def test_row_42_whole_numbers_stay_whole(key: random.Key) -> None:
    model = replace(OneSite(), {"z": PyroSample(dist.Delta(torch.tensor(3)))})
    assert apply(model, {}, key).dtype == torch.int64
    assert apply(to(model, torch.float64), {}, key).dtype == torch.int64


def test_row_42_the_prior_of_the_first_model_stays_as_it_is(key: random.Key) -> None:
    flow = dist.transforms.Planar(2)
    assert isinstance(flow, nn.Module)
    flow.requires_grad_(False)  # it belongs to no network of the model, so it is a constant
    prior = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [flow])
    model = replace(OneSite(), {"z": PyroSample(prior)})
    assert apply(to(model, torch.float64), {}, key).dtype == torch.float64
    assert {p.dtype for p in flow.parameters()} == {torch.float32}
    assert apply(model, {}, key).dtype == torch.float32


def test_row_43_render_model() -> None:
    graphviz = pytest.importorskip("graphviz")
    graph = pyro.render_model(
        regression(), model_args=(X, Y), render_params=True, render_distributions=True
    )
    assert isinstance(graph, graphviz.Digraph)
    for name in LATENT | {"y", "scale", "shift"}:
        assert f"{name} [" in graph.source
    assert "weight -> y" in graph.source
    assert "scale -> weight" in graph.source
    assert "label=data" in graph.source
    assert "GreaterThan" in graph.source


# ---------------------------------------------------------------------------- rows 44, 45 and 46


def test_row_44_func_grad_is_autograd(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    _, record = trace(model, params, key, X, Y)
    latents = record.latents

    def loss(params: dict[str, Tensor]) -> Tensor:
        return -log_density(model, params, latents, X, Y)

    functional = torch.func.grad(loss)(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    classic = torch.autograd.grad(loss(leaves), list(leaves.values()))
    assert set(functional) == NAMES
    for name, gradient in zip(leaves, classic, strict=True):
        torch.testing.assert_close(functional[name], gradient)
        assert bool(functional[name].ne(0).all()), f"the gradient of {name} is lost"


def test_row_44_gradients_flow_through_draws(key: random.Key) -> None:
    model = regression()
    params = init(model, key)

    def loss(params: dict[str, Tensor]) -> Tensor:
        return (apply(model, params, key, X) - Y).square().sum()

    functional = torch.func.grad(loss)(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    classic = torch.autograd.grad(loss(leaves), list(leaves.values()))
    for name, gradient in zip(leaves, classic, strict=True):
        torch.testing.assert_close(functional[name], gradient)
        assert bool(functional[name].ne(0).all()), f"the gradient of {name} is lost"

    step = 1e-3
    for name, gradient in functional.items():
        with torch.no_grad():
            up, down = (loss({**params, name: params[name] + sign * step}) for sign in (1.0, -1.0))
        numeric = (up - down) / (2 * step)
        torch.testing.assert_close(gradient.sum(), numeric, rtol=2e-2, atol=2e-2)


def test_row_44_gradients_are_those_of_pyro(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    _, record = trace(model, params, key, X, Y)
    ours = torch.func.grad(lambda p: log_density(model, p, record.latents, X, Y))(params)

    conditioned = poutine.condition(model, data=record.latents)
    tr = poutine.trace(conditioned).get_trace(X, Y)
    torch.as_tensor(tr.log_prob_sum()).backward()  # type: ignore[no-untyped-call]
    store = pyro.get_param_store()
    for name, gradient in ours.items():
        theirs = store[name] if name != "scale" else store.get_state()["params"]["scale"]
        assert theirs.grad is not None
        torch.testing.assert_close(gradient, theirs.grad)


def test_row_45_a_value_in_place_of_a_draw_is_recorded(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    w = torch.tensor([10.0, -10.0])
    y, record = trace(poutine.condition(model, data={"weight": w}), params, key, X)
    assert record.observed["weight"].equal(w)
    assert set(record.latents) == {"noise", "y"}
    expected = dist.Normal(torch.full((2,), 0.5), 2.0).to_event(1).log_prob(w)
    torch.testing.assert_close(record.log_densities["weight"], expected)
    mean = torch.tanh(X @ params["net.weight"].mT + params["net.bias"]) @ w
    assert float((y - mean).abs().max()) < 10 * float(record.latents["noise"])


def test_row_46_vmap_over_keys_is_a_loop(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    keys = random.split(key, 4)
    y, record = torch.vmap(lambda key: trace(model, params, random.Key(key), X))(keys)
    for i in range(4):
        yi, ri = trace(model, params, random.Key(keys[i]), X)
        for name in LATENT:
            assert record.latents[name][i].equal(ri.latents[name])
        torch.testing.assert_close(y[i], yi)
        torch.testing.assert_close(record.log_density[i], ri.log_density)
    assert len({float(v) for v in record.latents["noise"]}) == 4


def test_row_46_vmap_over_params_is_an_ensemble(key: random.Key) -> None:
    model = regression()
    base = init(model, key)
    noise = {
        n: random.normal(random.fold_in(key, i), (3, *v.shape))
        for i, (n, v) in enumerate(base.items())
    }
    stacked = {name: value + noise[name] for name, value in base.items()}
    keys = random.split(key, 3)

    def member(params: dict[str, Tensor], key: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        def loss(params: dict[str, Tensor]) -> Tensor:
            return (apply(model, params, random.Key(key), X) - Y).square().sum()

        return torch.func.grad_and_value(loss)(params)

    gradients, losses = torch.vmap(member)(stacked, keys)
    for i in range(3):
        alone, value = member({n: v[i] for n, v in stacked.items()}, keys[i])
        torch.testing.assert_close(losses[i], value)
        for name in NAMES:
            torch.testing.assert_close(gradients[name][i], alone[name])


# ------------------------------------------------------------------------------- rows 47 to 50


class PointGuide(Module):
    """Has a point for each latent site, so that the bound needs no draws."""

    weight_at = PyroParam(torch.tensor([1.0, -1.0]))
    noise_at = PyroParam(torch.tensor(0.7), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.sample("weight", dist.Delta(self.weight_at).to_event(1))
        pyro.sample("noise", dist.Delta(self.noise_at))


def test_row_47_the_bound_is_a_function_of_all_params(key: random.Key) -> None:
    model, guide = regression(), PointGuide()
    params = {**init(model, key), **init(guide, key)}

    def loss(params: dict[str, Tensor]) -> Tensor:
        return Trace_ELBO().loss(model, guide, params, key, X, Y)

    gradients, value = torch.func.grad_and_value(loss)(params)
    assert set(gradients) == NAMES | {"weight_at", "noise_at"}
    assert all(bool(g.ne(0).all()) for g in gradients.values())

    theirs = TraceELBOOfPyro().differentiable_loss(model, guide, X, Y)
    assert isinstance(theirs, Tensor)
    torch.testing.assert_close(value, theirs.detach())
    theirs.backward()  # type: ignore[no-untyped-call]
    state = pyro.get_param_store().get_state()["params"]
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, state[name].grad)


def test_row_47_params_are_optimised_by_hand(key: random.Key) -> None:
    # Upstream's interface test: the bound's parameters, an optimiser of torch's, a plain loop.
    model, guide = regression(), PointGuide()
    params = {**init(model, key), **init(guide, key)}
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = Trace_ELBO().loss(model, guide, leaves, key, X, Y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
    assert float(constrain(guide, {"noise_at": leaves["noise_at"].detach()})["noise_at"]) > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_row_48_pyros_jit_loss_takes_the_model() -> None:
    model, guide = regression(), PointGuide()
    plain = TraceELBOOfPyro().loss(model, guide, X, Y)
    traced = JitTrace_ELBO().loss(model, guide, X, Y)
    assert traced == pytest.approx(plain, rel=1e-5)


def test_row_49_apply_can_be_traced_to_a_graph(key: random.Key) -> None:
    model = regression()
    params = init(model, key)

    def run(params: dict[str, Tensor], key: Tensor, x: Tensor) -> Tensor:
        return apply(model, params, random.Key(key), x)

    # Torch's checks of distribution arguments look at values, which a graph does not have.
    with pyro.validation_enabled(False):
        graph = make_fx(run)(params, key, X)
    other = {name: value + 0.1 for name, value in params.items()}
    for args in [(params, key, X), (other, random.key(1), X + 1)]:
        torch.testing.assert_close(graph(*args), run(*args))


def test_row_50_fields_and_calls_have_static_types(key: random.Key) -> None:
    # `mypy --strict` reads these lines; what it must refuse is in tests/typing.
    model = regression()
    assert_type(model.net, nn.Linear)
    assert_type(model.size, int)
    assert_type(apply(model, init(model, key), key, X), Tensor)
    assert_type(init(model, key), dict[str, Tensor])
    assert isinstance(Regression.shift, PyroParam)
    assert isinstance(Regression.weight, PyroSample)
