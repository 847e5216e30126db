"""``torch.nn`` modules as fields: parameters, buffers, and what happens to the originals."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from purepyro import (
    Module,
    PyroSample,
    apply,
    apply_with_state,
    init,
    init_state,
    random,
    replace,
    trace,
)
from purepyro._errors import DeclarationError, MissingNameError, MutationError, UnknownNameError


class Net(Module):
    net: nn.Module

    def forward(self, *args: Tensor) -> Tensor:
        out: Tensor = self.net(*args)
        return out


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(4, 2), (5, 4)),
    "conv": (nn.Conv2d(1, 2, 3), (2, 1, 5, 5)),
    "sequential": (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), (5, 4)),
    "layer norm": (nn.LayerNorm(4), (5, 4)),
    "encoder": (nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), (2, 3, 4)),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), (5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_equals_functional_call(name: str, key: random.Key) -> None:
    net, shape = LAYERS[name]
    model, x = Net(net), random.normal(key, shape)
    params = init(model, key)
    assert set(params) == {f"net.{path}" for path, _ in net.named_parameters()}
    other = {path: value + 0.1 for path, value in params.items()}
    plain = {path.removeprefix("net."): value for path, value in other.items()}
    expected = torch.func.functional_call(net, plain, (x,))
    torch.testing.assert_close(apply(model, other, key, x), expected)
    torch.testing.assert_close(apply(model, params, key, x), net(x))


@pytest.mark.parametrize("rnn", [nn.LSTM(3, 4), nn.GRU(3, 4), nn.RNN(3, 4)], ids=repr)
def test_recurrent_nets_respond_to_their_parameters(rnn: nn.RNNBase, key: random.Key) -> None:
    class Recurrent(Module):
        rnn: nn.RNNBase

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rnn(x)[0]
            return out

    model, x = Recurrent(rnn), random.normal(key, 5, 3)
    params = init(model, key)
    torch.testing.assert_close(apply(model, params, key, x), model.rnn(x)[0])
    other = {path: value * 2 for path, value in params.items()}
    plain = {path.removeprefix("rnn."): value for path, value in other.items()}
    expected = torch.func.functional_call(model.rnn, plain, (x,))[0]
    torch.testing.assert_close(apply(model, other, key, x), expected)


def test_tied_weights_are_one_leaf(key: random.Key) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x))
            return out

    model, x = Net(Tied()), torch.ones(1, 3)
    params = init(model, key)
    assert set(params) == {"net.first.weight", "net.first.bias", "net.second.bias"}
    eye = {**params, "net.first.weight": 2 * torch.eye(3)}
    zero = {n: v if n.endswith("weight") else torch.zeros_like(v) for n, v in eye.items()}
    assert torch.equal(apply(model, zero, key, x), 4 * x)


def test_frozen_parameters_are_settings(key: random.Key) -> None:
    net = nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    assert set(init(Net(net), key)) == {"net.weight"}


def test_a_random_weight_in_a_recurrent_net(key: random.Key) -> None:
    class Recurrent(Module):
        rnn: nn.GRU

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rnn(x)[0]
            return out

    prior = dist.Normal(torch.zeros(12, 3), 1.0).to_event(2)
    model = replace(Recurrent(nn.GRU(3, 4)), {"rnn.weight_ih_l0": PyroSample(prior)})
    params, x = init(model, key), torch.ones(5, 3)
    assert "rnn.weight_ih_l0" not in params
    one, record = trace(model, params, key, x)
    assert not torch.equal(one, apply(model, params, random.key(1), x))
    plain = {path.removeprefix("rnn."): v for path, v in {**params, **record.latents}.items()}
    expected = torch.func.functional_call(model.rnn, plain, (x,))[0]
    torch.testing.assert_close(one, expected)


def test_lazy_layers_need_a_shape(key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=r"'weight' of a LazyLinear has no shape yet"):
        init(Net(nn.LazyLinear(2)), key)


def test_one_net_in_two_fields_is_one_set_of_parameters(key: random.Key) -> None:
    class Two(Module):
        a: nn.Linear
        b: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.a(x) - self.b(x)
            return out

    net = nn.Linear(2, 1)
    model = Two(net, net)
    assert set(init(model, key)) == {"a.weight", "a.bias"}
    assert torch.equal(apply(model, init(model, key), key, torch.ones(1, 2)), torch.zeros(1, 1))


def test_dropout_draws_from_the_key(key: random.Key) -> None:
    model, x = Net(nn.Dropout(0.5)), torch.ones(100)
    before = torch.get_rng_state()
    first, again = apply(model, {}, key, x), apply(model, {}, key, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert 20 < int((first == 0).sum()) < 80
    assert not torch.equal(first, apply(model, {}, random.key(1), x))


# Buffers


def _norm() -> Net:
    return Net(nn.BatchNorm1d(3))


def test_state_in_state_out(key: random.Key) -> None:
    model, x = _norm(), random.normal(key, 8, 3)
    state = init_state(model)
    assert set(state) == {"net.running_mean", "net.running_var", "net.num_batches_tracked"}
    params = init(model, key)
    y, new = apply_with_state(model, params, key, state, x)
    expected = nn.BatchNorm1d(3)
    torch.testing.assert_close(y, expected(x))
    torch.testing.assert_close(new["net.running_mean"], expected.running_mean)
    torch.testing.assert_close(new["net.running_var"], expected.running_var)
    assert torch.equal(state["net.running_mean"], torch.zeros(3))
    _, newer = apply_with_state(model, params, key, new, x)
    assert newer["net.num_batches_tracked"].item() == 2
    assert isinstance(model.net, nn.BatchNorm1d)
    assert model.net.num_batches_tracked is not None
    assert model.net.num_batches_tracked.item() == 0


def test_state_under_vmap(key: random.Key) -> None:
    model, x = _norm(), random.normal(key, 4, 8, 3)
    params, state = init(model, key), init_state(model)
    states = {name: value.expand(4, *value.shape).clone() for name, value in state.items()}

    def run(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return apply_with_state(model, params, key, state, x)

    _, new = torch.vmap(run)(states, x)
    _, third = run(state, x[2])
    torch.testing.assert_close(new["net.running_mean"][2], third["net.running_mean"])


def test_apply_does_not_lose_state(key: random.Key) -> None:
    model = _norm()
    with pytest.raises(MutationError, match=r"buffers 'net\.running_mean'.*apply_with_state.*eval"):
        apply(model, init(model, key), key, torch.ones(8, 3))
    evaluating = Net(nn.BatchNorm1d(3).eval())
    assert apply(evaluating, init(evaluating, key), key, torch.ones(8, 3)).shape == (8, 3)


def test_state_that_does_not_fit(key: random.Key) -> None:
    model, x = _norm(), torch.ones(8, 3)
    params, state = init(model, key), init_state(model)
    missing = {name: value for name, value in state.items() if name != "net.running_var"}
    with pytest.raises(MissingNameError, match=r"no buffer 'net\.running_var'.*init_state"):
        apply_with_state(model, params, key, missing, x)
    with pytest.raises(UnknownNameError, match=r"the buffer 'net\.runing_var'"):
        apply_with_state(model, params, key, {**state, "net.runing_var": torch.ones(3)}, x)
    with pytest.raises(ValueError, match=r"'net\.running_var' is float32\[4\] in the state"):
        apply_with_state(model, params, key, {**state, "net.running_var": torch.ones(4)}, x)


def test_outside_apply_buffers_change_in_place() -> None:
    model = _norm()
    model(torch.ones(8, 3))
    assert isinstance(model.net, nn.BatchNorm1d)
    assert model.net.num_batches_tracked is not None
    assert model.net.num_batches_tracked.item() == 1
