"""Mixins, conversion and containers, ported in spirit from Pyro's ``tests/nn/test_module.py``.

Row numbers are those of the table in ``docs/migration.md``.
"""

from __future__ import annotations

import io

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro.nn import PyroSample as PyroSampleOfPyro
from pyro.nn.module import to_pyro_module_
from pyro.optim import Adam
from torch import Tensor, nn

from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    apply_with_state,
    init,
    init_state,
    log_density,
    random,
    replace,
    trace,
)


class Net(Module):
    """Any network of torch's as a field."""

    net: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


def mlp() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def standard(shape: torch.Size) -> PyroSample:
    """A prior of independent standard normals."""
    return PyroSample(dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape)))


X = torch.linspace(-1.0, 1.0, 15).reshape(5, 3)


# -------------------------------------------------------------------------------- rows 32, 33, 34


def test_row_32_field_computes_what_the_layer_does(key: random.Key) -> None:
    linear = nn.Linear(3, 2)
    model = Net(linear)
    params = init(model, key)
    assert set(params) == {"net.weight", "net.bias"}
    expected = linear(X).detach()
    assert apply(model, params, key, X).equal(expected)
    torch.testing.assert_close(PyroModule[nn.Linear](3, 2)(X).shape, expected.shape)


def test_row_32_params_save_and_load(key: random.Key) -> None:
    model = Net(nn.Linear(3, 2))
    params = init(model, key)
    file = io.BytesIO()
    torch.save(params, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert apply(model, params, key, X).equal(apply(model, loaded, key, X))
    other = nn.Linear(3, 2)
    other.load_state_dict({name.removeprefix("net."): p for name, p in loaded.items()})
    assert apply(model, loaded, key, X).equal(other(X).detach())


class LinearFromScratch(Module):
    """Upstream's ``RandomLinear``: weight and bias random, written as a Module."""

    size: int

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(torch.zeros(2, self.size), 1.0).to_event(2)

    @PyroSample
    def bias(self) -> Prior:
        return dist.Normal(torch.zeros(2), 10.0).to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class TheirRandomLinear(nn.Linear, PyroModule):
    def __init__(self) -> None:
        super().__init__(3, 2)
        weight = dist.Normal(torch.zeros(2, 3), 1.0).to_event(2)
        bias = dist.Normal(torch.zeros(2), 10.0).to_event(1)
        # Type checkers refuse a PyroSample where a Parameter was.
        self.weight = PyroSampleOfPyro(weight)  # type: ignore[assignment]
        self.bias = PyroSampleOfPyro(bias)  # type: ignore[assignment]


def random_linear() -> Net:
    return replace(
        Net(nn.Linear(3, 2)),
        {
            "net.weight": PyroSample(dist.Normal(torch.zeros(2, 3), 1.0).to_event(2)),
            "net.bias": PyroSample(dist.Normal(torch.zeros(2), 10.0).to_event(1)),
        },
    )


def test_row_33_random_weights_by_replace(key: random.Key) -> None:
    model = random_linear()
    assert init(model, key) == {}
    y, record = trace(model, {}, key, X)
    w, b = record.latents["net.weight"], record.latents["net.bias"]
    torch.testing.assert_close(y, X @ w.mT + b)
    expected = dist.Normal(0.0, 1.0).log_prob(w).sum() + dist.Normal(0.0, 10.0).log_prob(b).sum()
    torch.testing.assert_close(record.log_density, expected)


def test_row_33_agrees_with_the_mixin_class(key: random.Key) -> None:
    values = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    theirs = poutine.trace(poutine.condition(TheirRandomLinear(), data=values)).get_trace(X)
    at = {f"net.{name}": value for name, value in values.items()}
    for density in (
        log_density(random_linear(), {}, at, X),
        log_density(LinearFromScratch(3), {}, values, X),
    ):
        torch.testing.assert_close(density, theirs.log_prob_sum())
    y = apply(poutine.condition(random_linear(), data=at), {}, key, X)
    torch.testing.assert_close(y, theirs.nodes["_RETURN"]["value"])


def test_row_34_conversion_leaves_the_network_as_it_is(key: random.Key) -> None:
    net = mlp()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(X).detach()
    model = Net(net)
    params = init(model, key)
    assert set(params) == {f"net.{name}" for name, _ in net.named_parameters()}
    assert apply(model, params, key, X).equal(expected)

    moved = {name: value + 1 for name, value in params.items()}
    assert not apply(model, moved, key, X).equal(expected)
    randomised = replace(model, {"net.0.weight": standard(torch.Size([4, 3]))})
    y, record = trace(randomised, init(randomised, key), key, X)
    assert list(record.latents) == ["net.0.weight"]
    assert not y.equal(expected)

    assert type(net) is nn.Sequential
    assert net(X).detach().equal(expected)
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())


def test_row_34_same_sites_as_to_pyro_module(key: random.Key) -> None:
    theirs = mlp()
    to_pyro_module_(theirs)
    prior = dist.Normal(torch.zeros(4, 3), 1.0).to_event(2)
    theirs[0].weight = PyroSampleOfPyro(prior)  # type: ignore[assignment]
    tr = poutine.trace(theirs).get_trace(X)

    model = replace(Net(mlp()), {"net.0.weight": PyroSample(prior)})
    params = init(model, key)
    value = torch.as_tensor(tr.nodes["0.weight"]["value"])
    y, record = trace(poutine.condition(model, data={"net.0.weight": value}), params, key, X)
    torch.testing.assert_close(y, torch.as_tensor(tr.nodes["_RETURN"]["value"]).detach())
    torch.testing.assert_close(record.log_density, prior.log_prob(value))
    torch.testing.assert_close(record.log_density, tr.log_prob_sum())
    assert {f"net.{name}" for name in tr.param_nodes} == set(params)


def test_row_34_weight_constrained_to_be_positive(key: random.Key) -> None:
    model = replace(
        Net(mlp()),
        {"net.2.weight": PyroParam(torch.full((2, 4), 3.0), constraint=constraints.positive)},
    )
    params = init(model, key)
    torch.testing.assert_close(params["net.2.weight"], torch.full((2, 4), 3.0).log())
    hidden = torch.relu(X @ params["net.0.weight"].mT + params["net.0.bias"])
    expected = hidden @ torch.full((4, 2), 3.0) + params["net.2.bias"]
    torch.testing.assert_close(apply(model, params, key, X), expected)


# ---------------------------------------------------------------------------------- rows 35 and 36


def test_row_35_all_weights_random(key: random.Key) -> None:
    net = mlp()
    model = replace(
        Net(net), {f"net.{name}": standard(p.shape) for name, p in net.named_parameters()}
    )
    assert init(model, key) == {}
    _, record = trace(model, {}, key, X)
    assert {name: value.shape for name, value in record.latents.items()} == {
        f"net.{name}": p.shape for name, p in net.named_parameters()
    }
    every = torch.cat([value.flatten() for value in record.latents.values()])
    torch.testing.assert_close(record.log_density, dist.Normal(0.0, 1.0).log_prob(every).sum())


def test_row_35_a_weights_prior_reads_the_modules_fields(key: random.Key) -> None:
    class Hierarchical(Module):
        net: nn.Linear
        scale = PyroSample(dist.HalfNormal(1.0))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x)
            return y

    model = replace(
        Hierarchical(nn.Linear(3, 2)),
        {
            "net.weight": PyroSample(
                lambda self: dist.Normal(torch.zeros(2, 3), self.scale).to_event(2)
            )
        },
    )
    params = init(model, key)
    _, record = trace(model, params, key, X)
    assert list(record.latents) == ["scale", "net.weight"]
    scale, weight = record.latents["scale"], record.latents["net.weight"]
    torch.testing.assert_close(
        record.log_density,
        dist.HalfNormal(1.0).log_prob(scale) + dist.Normal(0.0, scale).log_prob(weight).sum(),
    )


def test_row_35_init_may_run_a_model_with_random_weights(key: random.Key) -> None:
    model = replace(Net(mlp()), {"net.0.weight": standard(torch.Size([4, 3]))})
    assert set(init(model, key, X)) == set(init(model, key))
    assert set(init(poutine.scale(model, scale=2.0), key, X)) == set(init(model, key))


class Layer(Module):
    """As upstream's ``NestedBNN`` has them."""

    width: int

    @PyroSample
    def weight(self) -> Prior:
        return dist.Normal(torch.zeros(self.width, self.width), 1.0).to_event(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight.mT)


class Stack(Module):
    """Goes through its layers by position, by a loop, or by slices."""

    layers: tuple[Layer, ...]
    way: str

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "position":
            return self.layers[2](self.layers[1](self.layers[0](x)))
        parts = (self.layers[:1], self.layers[1:]) if self.way == "slices" else (self.layers,)
        for part in parts:
            for layer in part:
                x = layer(x)
        return x


@pytest.mark.parametrize("way", ["loop", "slices"])
def test_row_36_positions_and_slices_give_the_same_names(way: str, key: random.Key) -> None:
    layers = (Layer(3), Layer(3), Layer(3))
    y, record = trace(Stack(layers, "position"), {}, key, X)
    assert list(record.latents) == [f"layers.{i}.weight" for i in range(3)]
    y2, record2 = trace(Stack(layers, way), {}, key, X)
    assert list(record2.latents) == list(record.latents)
    assert y.equal(y2)


def test_row_36_lists_and_dicts_and_module_lists(key: random.Key) -> None:
    class Mixed(Module):
        many: list[Layer]
        named: dict[str, tuple[Layer, Layer]]
        torchs: nn.ModuleList

        def forward(self, x: Tensor) -> Tensor:
            for layer in (*self.many, *self.named["pair"], *self.torchs):
                x = torch.as_tensor(layer(x))
            return x

    layers = [Layer(3) for _ in range(3)]
    model = Mixed(layers[:1], {"pair": (layers[1], layers[2])}, nn.ModuleList([nn.Linear(3, 3)]))
    params = init(model, key)
    _, record = trace(model, params, key, X)
    assert set(record.latents) == {"many.0.weight", "named.pair.0.weight", "named.pair.1.weight"}
    assert set(params) == {"torchs.0.weight", "torchs.0.bias"}


# ---------------------------------------------------------------------------------- rows 37 and 38


def rnn_of(kind: str) -> nn.RNNBase:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.RNNBase = getattr(nn, kind)(3, 4, num_layers=2, batch_first=True)
        return made


class Recurrent(Module):
    """The outputs of a recurrent network."""

    rnn: nn.RNNBase

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rnn(x)[0]
        return y


SEQUENCES = torch.linspace(-1.0, 1.0, 2 * 5 * 3).reshape(2, 5, 3)
RNNS = ["GRU", "LSTM", "RNN"]


@pytest.mark.parametrize("kind", RNNS)
def test_row_37_recurrent_layer_uses_the_dict(kind: str, key: random.Key) -> None:
    rnn = rnn_of(kind)
    model = Recurrent(rnn)
    params = init(model, key)
    expected = rnn(SEQUENCES)[0].detach()
    torch.testing.assert_close(apply(model, params, key, SEQUENCES), expected)
    zeros = {name: torch.zeros_like(value) for name, value in params.items()}
    assert apply(model, zeros, key, SEQUENCES).eq(0).all()
    torch.testing.assert_close(rnn(SEQUENCES)[0].detach(), expected)


@pytest.mark.parametrize("kind", RNNS)
def test_row_37_bayesian_recurrent_layer(kind: str, key: random.Key) -> None:
    rnn = rnn_of(kind)
    model = replace(
        Recurrent(rnn), {f"rnn.{name}": standard(p.shape) for name, p in rnn.named_parameters()}
    )
    assert init(model, key) == {}
    y, record = trace(model, {}, key, SEQUENCES)
    assert set(record.latents) == {f"rnn.{name}" for name, _ in rnn.named_parameters()}

    drawn = rnn_of(kind)
    drawn.load_state_dict({n.removeprefix("rnn."): v for n, v in record.latents.items()})
    torch.testing.assert_close(y, drawn(SEQUENCES)[0].detach())
    assert not apply(model, {}, random.key(1), SEQUENCES).equal(y)


@pytest.mark.parametrize("kind", RNNS)
def test_row_37_gradients_reach_all_weights(kind: str, key: random.Key) -> None:
    model = Recurrent(rnn_of(kind))
    params = init(model, key)
    gradients = torch.func.grad(lambda p: apply(model, p, key, SEQUENCES).square().sum())(params)
    assert all(bool(g.ne(0).any()) for g in gradients.values())


def test_row_37_one_random_weight_trains_under_svi() -> None:
    # Upstream's smoke test: one weight random, the rest learned, by Pyro's own SVI.
    class Observed(Module):
        rnn: nn.GRU

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn(x)[0]
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(y, 0.1).to_event(2), obs=torch.zeros_like(y))
            return y

    rnn = nn.GRU(3, 4, batch_first=True)
    model = replace(Observed(rnn), {"rnn.weight_ih_l0": standard(torch.Size([12, 3]))})
    svi = SVI(model, AutoNormal(model), Adam({"lr": 0.01}), Trace_ELBO())
    losses = [float(svi.step(SEQUENCES)) for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert "rnn.weight_hh_l0" in pyro.get_param_store()
    assert "rnn.weight_ih_l0" not in pyro.get_param_store()


class Normed(Module):
    """Has buffers."""

    norm: nn.BatchNorm1d

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


def test_row_38_buffers_are_state_in_state_out(key: random.Key) -> None:
    norm, reference = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    model = Normed(norm)
    params, state = init(model, key), init_state(model)
    assert set(params) == {"norm.weight", "norm.bias"}
    first = dict(state)
    for _ in range(3):
        y, state = apply_with_state(model, params, key, state, X)
        torch.testing.assert_close(y, reference(X).detach())
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(state[f"norm.{name}"], buffer)
    assert int(state["norm.num_batches_tracked"]) == 3
    assert int(first["norm.num_batches_tracked"]) == 0
    for _, buffer in norm.named_buffers():
        assert bool(buffer.eq(nn.BatchNorm1d(1).get_buffer(_)).all()), "the layer stays as it is"


def test_row_38_apply_does_not_lose_a_change_of_buffers(key: random.Key) -> None:
    model = Normed(nn.BatchNorm1d(3))
    params = init(model, key)
    with pytest.raises(RuntimeError, match=r"changed the buffers.*norm\..*apply_with_state"):
        apply(model, params, key, X)
    evaluating = Normed(nn.BatchNorm1d(3).eval())
    torch.testing.assert_close(apply(evaluating, params, key, X), X, rtol=1e-4, atol=1e-4)


class Statistics(nn.Module):
    """Calls torch's function itself, which changes the buffers, but not their version."""

    mean: Tensor
    var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.mean, self.var, training=True)


def test_row_38_apply_notices_a_change_that_leaves_no_version(key: random.Key) -> None:
    net = Statistics()
    _, state = apply_with_state(Net(net), {}, key, init_state(Net(net)), X)
    assert not state["net.mean"].equal(torch.zeros(3))
    assert net.mean.equal(torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"changed the buffers 'net\.mean', 'net\.var'"):
        apply(Net(net), {}, key, X)


def test_row_38_as_pyro_model_buffers_change_in_place() -> None:
    norm = nn.BatchNorm1d(3)
    poutine.trace(Normed(norm)).get_trace(X)
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 1
