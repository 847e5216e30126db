"""``lift`` over the layers of torch: each alone, under ``vmap``, under ``grad``; what cannot go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from purepyro import (
    Lifted,
    apply,
    apply_with_state,
    expand_state,
    init,
    init_state,
    lift,
    random,
    reduce_state,
    trace,
)
from purepyro._errors import (
    DeclarationError,
    MutationError,
    ShapeError,
    UnsupportedLayerError,
)


class First(nn.Module):
    """The first result of a network that returns several; one argument for all of its inputs."""

    def __init__(self, net: nn.Module, inputs: int = 1) -> None:
        super().__init__()
        self.net = net
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(*[x] * self.inputs)[0]
        return out


class Block(nn.Module):
    """The block of a ResNet."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size)
        self.conv2 = nn.Conv2d(size, size, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(x)).relu()
        out: Tensor = self.bn2(self.conv2(inner))
        return (out + x).relu()


def resnet() -> nn.Sequential:
    stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(stem, Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def encoder(**settings: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, 0.1, batch_first=True, **settings)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 2), (5, 4)),
    "conv": (lambda: nn.Conv2d(1, 2, 3), (2, 1, 5, 5)),
    "transposed conv": (lambda: nn.ConvTranspose1d(1, 2, 3), (2, 1, 5)),
    "embedding": (lambda: nn.Embedding(7, 3, padding_idx=0), (5, 2)),
    "layer norm": (lambda: nn.LayerNorm(4), (5, 4)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (5, 4)),
    "attention": (lambda: First(nn.MultiheadAttention(4, 2, batch_first=True), 3), (2, 3, 4)),
    "encoder": (lambda: encoder(), (2, 3, 4)),
    "encoder, norm first": (lambda: encoder(norm_first=True), (2, 3, 4)),
    "encoder, eval": (lambda: encoder().eval(), (2, 3, 4)),
    "lstm": (lambda: First(nn.LSTM(4, 3)), (5, 2, 4)),
    "lstm, all settings": (
        lambda: First(nn.LSTM(4, 3, 2, dropout=0.5, bidirectional=True, batch_first=True)),
        (2, 5, 4),
    ),
    "lstm, no bias": (lambda: First(nn.LSTM(4, 3, bias=False)), (5, 4)),
    "gru": (lambda: First(nn.GRU(4, 3, 2)), (5, 4)),
    "rnn": (lambda: First(nn.RNN(4, 3, nonlinearity="relu")), (5, 4)),
    "lstm cell": (lambda: First(nn.LSTMCell(4, 3)), (2, 4)),
    "gru cell": (lambda: nn.GRUCell(4, 3), (2, 4)),
    "rnn cell": (lambda: nn.RNNCell(4, 3), (4,)),
    "resnet": (lambda: resnet().eval(), (2, 1, 6, 6)),
}

Layer = tuple[nn.Module, Tensor]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest, key: random.Key) -> Layer:
    """A network and an input for it."""
    make, shape = LAYERS[request.param]
    with random.keyed(random.key(7)):
        net = make()
    if isinstance(net, nn.Embedding):
        return net, torch.arange(10).reshape(5, 2) % 7
    return net, random.normal(key, shape)


def drops(net: nn.Module) -> bool:
    return any(getattr(m, "dropout", 0.0) != 0.0 for m in net.modules() if m.training)


def test_equals_functional_call(layer: Layer, key: random.Key) -> None:
    net, x = layer
    if drops(net):
        net.eval()
    model = lift(net)
    params = init(model, key)
    assert list(params) == [name for name, _ in net.named_parameters()]
    torch.testing.assert_close(apply(model, params, key, x), net(x))
    other = {name: value + 0.3 for name, value in params.items()}
    expected = torch.func.functional_call(net, other, (x,))
    torch.testing.assert_close(apply(model, other, key, x), expected)
    assert not torch.allclose(expected, net(x)), "it responds to its parameters"


def test_vmap_is_a_loop(layer: Layer, key: random.Key) -> None:
    """Also where units are dropped; no warning of a slow loop is given, since warnings raise."""
    net, x = layer
    model, keys = lift(net, reinitialize=True), random.split(key, 3)
    params = torch.vmap(lambda key: init(model, key))(keys)
    stacked = torch.vmap(lambda params, key: apply(model, params, key, x))(params, keys)
    for i in range(3):
        one = init(model, random.Key(keys[i]))
        assert all(torch.equal(one[name], params[name][i]) for name in one), "bit for bit"
        alone = apply(model, one, random.Key(keys[i]), x)
        torch.testing.assert_close(stacked[i], alone, atol=1e-6, rtol=1e-4)


def test_gradients(layer: Layer, key: random.Key) -> None:
    net, x = layer
    model = lift(net)
    params = init(model, key)

    def loss(params: dict[str, Tensor]) -> Tensor:
        out: Tensor = apply(model, params, key, x)
        return out.pow(2).sum()

    gradients = torch.func.grad(loss)(params)
    leaves = {name: value.requires_grad_() for name, value in init(model, key).items()}
    expected = torch.autograd.grad(loss(leaves), list(leaves.values()))
    for name, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)
    torch.vmap(torch.func.grad(loss))({n: torch.stack([v, v]) for n, v in params.items()})


def test_random_parameters(layer: Layer, key: random.Key) -> None:
    net, x = layer
    model = lift(net, dist.Normal(0.0, 1.0))
    y, record = trace(model, {}, key, x)
    assert set(record.latents) == {name for name, _ in net.named_parameters()}
    assert not torch.equal(y, apply(model, {}, random.key(1), x))


def test_packed_sequences(key: random.Key) -> None:
    net: Any = nn.LSTM(2, 3)
    packed = nn.utils.rnn.pack_sequence([torch.ones(4, 2), torch.ones(3, 2)])
    model: Lifted[[object], tuple[Any, object]] = lift(net)
    params = init(model, key)
    found = apply(model, params, key, packed)[0].data
    torch.testing.assert_close(found, net(packed)[0].data)

    def total(params: dict[str, Tensor]) -> Tensor:
        out: Tensor = apply(model, params, key, packed)[0].data
        return out.sum()

    with pytest.raises(UnsupportedLayerError, match=r"PackedSequence.*pad_packed_sequence"):
        torch.func.grad(total)(params)


def test_a_bert_made_from_its_settings(key: random.Key) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
    )
    net = transformers.BertModel(config).eval()
    ids = torch.tensor([[1, 2, 3], [4, 5, 0]])
    model: Lifted[[Tensor], Any] = lift(net, {"encoder.layer.1.*.weight": dist.Normal(0.0, 0.1)})
    params = init(model, key)
    y, record = trace(model, params, key, ids)
    assert y.last_hidden_state.shape == (2, 3, 8)
    assert "encoder.layer.1.output.dense.weight" in record.latents
    plain: Lifted[[Tensor], Any] = lift(net)
    same = apply(plain, init(plain, key), key, ids).last_hidden_state
    torch.testing.assert_close(same, net(ids).last_hidden_state)
    again: Lifted[[Tensor], Any] = lift(net, reinitialize=True)
    params = torch.vmap(lambda key: init(again, key))(random.split(key, 2))
    torch.vmap(lambda p: apply(plain, p, key, ids).last_hidden_state)(params)


# Buffers


def test_state_in_state_out(key: random.Key) -> None:
    net, x = resnet(), random.normal(key, 4, 1, 6, 6)
    model = lift(net)
    params, state = init(model, key), init_state(model)
    assert "1.bn1.running_mean" in state
    _, new = apply_with_state(model, params, key, state, x)
    assert int(new["1.bn1.num_batches_tracked"]) == 1
    assert int(net.get_buffer("1.bn1.num_batches_tracked")) == 0
    net(x)
    torch.testing.assert_close(new, dict(net.named_buffers()))


def test_particles_need_a_state_each(key: random.Key) -> None:
    model, x = lift(resnet()), random.normal(key, 4, 1, 6, 6)
    params, state = init(model, key), init_state(model)
    with pytest.raises(MutationError, match=r"'0\.1\.running_mean'.*apply_with_state.*GroupNorm"):
        apply(model, params, key, x)
    stacked = {name: torch.stack([value, value + 0.1]) for name, value in params.items()}
    ways = r"layer '0\.1' \(BatchNorm2d\).*'0\.1\.running_mean'.*eval.*GroupNorm.*expand_state"
    with pytest.raises(MutationError, match=ways):
        torch.vmap(lambda params: apply(model, params, key, x))(stacked)

    def run(
        params: dict[str, Tensor], state: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return apply_with_state(model, params, key, state, x)

    _, states = torch.vmap(run)(stacked, expand_state(state, 2))
    _, second = apply_with_state(model, {n: v[1] for n, v in stacked.items()}, key, state, x)
    last = {name: value[1] for name, value in states.items()}
    torch.testing.assert_close(last, second)
    mean, first = reduce_state(states, "mean"), reduce_state(states, "first")
    name = "0.1.running_mean"
    torch.testing.assert_close(mean[name], states[name].mean(0))
    assert torch.equal(first[name], states[name][0])
    assert int(mean["0.1.num_batches_tracked"]) == 1
    assert set(mean) == set(state)


def test_states_that_cannot_be_stacked_or_reduced() -> None:
    with pytest.raises(DeclarationError, match=r"num=0"):
        expand_state({}, 0)
    policy: Any = "median"
    with pytest.raises(DeclarationError, match=r"policy 'median'.*'mean'"):
        reduce_state({}, policy)
    with pytest.raises(ShapeError, match=r"'count' has the shape \[\]"):
        reduce_state({"count": torch.tensor(1)}, "mean")


# Layers that do not go with vmap


class Branch(nn.Module):
    """Looks at its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x if bool((self.weight > 0).all()) else -x


def test_a_layer_that_does_not_go_with_vmap_is_named(key: random.Key) -> None:
    model = lift(nn.Sequential(nn.Linear(2, 2), nn.Sequential(Branch())))
    params = {n: torch.stack([v, v]) for n, v in init(model, key).items()}
    with pytest.raises(UnsupportedLayerError, match=r"layer '1\.0' \(Branch\).*vmap.*loop"):
        torch.vmap(lambda params: apply(model, params, key, torch.ones(2)))(params)
    with pytest.raises(UnsupportedLayerError, match=r"The network \(Branch\)"):
        torch.vmap(lambda p: apply(lift(Branch()), p, key, torch.ones(2)))(
            {"weight": torch.ones(2, 2)}
        )


def test_bilinear_layers_have_no_rule(key: random.Key) -> None:
    model, x = lift(nn.Bilinear(2, 2, 1)), torch.ones(3, 2)
    params = {n: torch.stack([v, v]) for n, v in init(model, key).items()}
    with pytest.raises(UnsupportedLayerError, match=r"The network \(Bilinear\) does not go"):
        torch.vmap(lambda params: apply(model, params, key, x, x))(params)


class Slow(nn.Module):
    """An operation for which torch has no rule, and warns of its slow loop."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.histc(x, 3)


def test_a_slow_loop_is_named_where_warnings_are_errors(key: random.Key) -> None:
    model = lift(nn.Sequential(nn.ReLU(), Slow()))
    with pytest.raises(UnsupportedLayerError, match=r"layer '1' \(Slow\)"):
        torch.vmap(lambda x: apply(model, {}, key, x))(torch.ones(2, 3))


def test_other_errors_are_left_alone(key: random.Key) -> None:
    model = lift(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied"):
        apply(model, init(model, key), key, torch.ones(2, 3))


# New starting values


def test_reinitialize_follows_the_rules_of_the_layers(key: random.Key) -> None:
    """40,000 uniform numbers: within the bound, the deviation within 2 % of the right one."""
    net = nn.Sequential(nn.Linear(100, 400), nn.LayerNorm(400))
    model = lift(net, reinitialize=True)
    params = init(model, key)
    bound = 1 / 10  # of kaiming_uniform_(a=sqrt(5)), and of the bias
    weight = params["0.weight"]
    assert weight.abs().max() <= bound
    assert abs(weight.std() / (bound / 3**0.5) - 1) < 0.02
    assert params["0.bias"].abs().max() <= bound
    assert torch.equal(params["1.weight"], torch.ones(400))
    assert torch.equal(params["0.weight"], init(model, key)["0.weight"])
    assert not torch.equal(params["0.weight"], init(model, random.key(1))["0.weight"])
    assert not torch.equal(params["0.weight"], net.state_dict()["0.weight"])
    with random.forbid_reuse():
        init(model, random.key(2))


def test_reinitialize_depends_on_the_path_alone(key: random.Key) -> None:
    short = init(lift(nn.Sequential(nn.Linear(2, 2)), reinitialize=True), key)
    long = lift(
        nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
        {"1.bias": dist.Normal(0.0, 1.0)},
        reinitialize=True,
    )
    params = init(long, key)
    assert torch.equal(params["0.weight"], short["0.weight"])
    assert not torch.equal(params["0.weight"], params["1.weight"])


def test_rules_of_attention_reach_into_its_layers(key: random.Key) -> None:
    net = nn.MultiheadAttention(4, 2)
    params = init(lift(net, reinitialize=True), key)
    assert torch.equal(params["out_proj.bias"], torch.zeros(4))
    assert params["in_proj_weight"].abs().max() <= (6 / 16) ** 0.5


class Ruled(nn.Module):
    """A layer with an initialiser of one's own."""

    def __init__(self, rule: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))
        self.rule = rule

    def reset_parameters(self) -> None:
        self.rule(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT


RULES: dict[str, Callable[[Tensor], object]] = {
    "kaiming_normal": nn.init.kaiming_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "trunc_normal": nn.init.trunc_normal_,
    "sparse": lambda w: nn.init.sparse_(w, 0.5),
    "eye": nn.init.eye_,
    "data": lambda w: w.data.uniform_(-1, 1),
    "ones": nn.init.ones_,
}


@pytest.mark.parametrize("name", RULES)
def test_initialisers_under_vmap(name: str, key: random.Key) -> None:
    model, keys = lift(Ruled(RULES[name]), reinitialize=True), random.split(key, 3)
    alone = [init(model, random.Key(key))["weight"] for key in keys]
    stacked = torch.vmap(lambda key: init(model, key))(keys)["weight"]
    assert torch.equal(stacked, torch.stack(alone))
    assert name in ("ones", "eye") or not torch.equal(alone[0], alone[1])


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(3))
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x + self.token)
        return out


def test_a_layer_without_a_rule_is_named(key: random.Key) -> None:
    net = nn.Sequential(Bare())
    match = r"layer '0' \(Bare\) has the parameter 'token'.*reset_parameters.*frozen=\['0\.token'\]"
    with pytest.raises(DeclarationError, match=match):
        init(lift(net, reinitialize=True), key)
    assert set(init(lift(net, frozen="0.token", reinitialize=True), key)) == {
        "0.linear.weight",
        "0.linear.bias",
    }
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    with pytest.raises(DeclarationError, match=r"ParametrizationList.*'original0'"):
        init(lift(normed, reinitialize=True), key)
