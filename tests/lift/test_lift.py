"""``lift``: names, roles, priors and errors; what it computes; that the network stays as it is."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor, nn

from purepyro import (
    Lifted,
    Module,
    PyroParam,
    PyroSample,
    apply,
    fan_in_laplace,
    fan_in_normal,
    init,
    lift,
    log_density,
    random,
    replace,
    to,
    trace,
)
from purepyro._errors import DeclarationError, ShapeError, UnknownNameError
from purepyro.infer import SVI, AutoNormal, Trace_ELBO


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
STANDARD = dist.Normal(0.0, 1.0)


# What it computes


def test_equals_the_network(key: random.Key) -> None:
    net, x = mlp(), torch.ones(5, 3)
    model = lift(net)
    params = init(model, key)
    assert list(params) == NAMES
    assert torch.equal(apply(model, params, key, x), net(x))
    other = {name: value + 0.1 for name, value in params.items()}
    expected = torch.func.functional_call(net, other, (x,))
    torch.testing.assert_close(apply(model, other, key, x), expected)


def test_a_network_without_parameters(key: random.Key) -> None:
    model = lift(nn.ReLU())
    assert init(model, key) == {}
    assert torch.equal(apply(model, {}, key, torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))


class Odd(nn.Module):
    """Parameters of all kinds: of no dimension, in lists and dicts, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.items = nn.ParameterList([torch.ones(2, dtype=torch.float64)])
        self.table = nn.ParameterDict({"a": torch.ones(2, dtype=torch.float64)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x * self.scale + self.items[0] + self.table["a"]
        return out


def test_parameters_of_all_kinds(key: random.Key) -> None:
    net, x = Odd(), torch.ones(2, dtype=torch.float64)
    assert list(init(lift(net), key)) == ["scale", "items.0", "table.a"]
    assert torch.equal(apply(lift(net), init(lift(net), key), key, x), net(x))
    random_net = lift(net, STANDARD)
    y, record = trace(random_net, {}, key, x)
    assert {name: tuple(v.shape) for name, v in record.latents.items()} == {
        "scale": (),
        "items.0": (2,),
        "table.a": (2,),
    }
    assert y.dtype == record.latents["scale"].dtype == torch.float64
    assert record.log_density.shape == ()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.again(self.second(self.first(x)))
        return out


def test_tied_weights_and_shared_layers_are_one_leaf(key: random.Key) -> None:
    net, x = Tied(), torch.ones(1, 3)
    assert list(init(lift(net), key)) == ["first.weight", "first.bias", "second.bias"]
    # All names of a tied parameter lead to it.
    model = lift(net, {"second.weight": STANDARD, "again.bias": STANDARD})
    y, record = trace(model, init(model, key), key, x)
    assert set(record.latents) == {"first.weight", "first.bias"}
    weight, bias = record.latents["first.weight"], record.latents["first.bias"]
    inner = (x @ weight.mT + bias) @ weight.mT + net.second.bias
    torch.testing.assert_close(y, inner @ weight.mT + bias)
    with pytest.raises(DeclarationError, match=r"'first\.weight' and 'second\.weight'"):
        lift(net, {"first.weight": STANDARD, "second.weight": dist.Normal(0.0, 2.0)})


def test_parametrizations(key: random.Key) -> None:
    net: nn.Module = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    x, model = torch.ones(1, 3), lift(net)
    torch.testing.assert_close(apply(model, init(model, key), key, x), net(x))
    assert "parametrizations.weight.original0" in init(model, key)


def test_the_network_stays_as_it_is(key: random.Key) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.LSTM(3, 2))
    calls: list[int] = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    before, objects = copy.deepcopy(net.state_dict()), dict(net.named_parameters())
    ids = {name: id(value) for name, value in vars(net[0]).items()}
    model = lift(net, {"0.*": STANDARD}, frozen="2.bias*", reinitialize=True)
    params = init(model, key)
    torch.func.grad(lambda p: apply(model, p, key, torch.ones(4, 3))[0].sum())(params)
    assert len(calls) == 1, "hooks run"
    assert net.training
    assert net[1].training
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in before.items())
    assert all(p is objects[n] and p.grad is None for n, p in net.named_parameters())
    assert {name: id(value) for name, value in vars(net[0]).items()} == ids


def test_two_threads(key: random.Key) -> None:
    model, x = lift(mlp()), torch.ones(2, 3)
    params = [{n: v + i for n, v in init(model, key).items()} for i in range(8)]
    alone = [apply(model, p, key, x) for p in params]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda p: apply(model, p, key, x), params * 5))
    assert all(torch.equal(a, b) for a, b in zip(alone * 5, together, strict=True))


class Regression(Module):
    encoder: Lifted[[Tensor], Tensor]
    heads: tuple[Lifted[[Tensor], Tensor], ...]
    sigma = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = self.heads[0](self.encoder(x)).squeeze(-1)
        sigma = self.sigma
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def test_inside_another_module(key: random.Key) -> None:
    body, head = nn.Linear(3, 4), nn.Linear(4, 1)
    model = Regression(lift(body, frozen="bias"), (lift(head, STANDARD),))
    params = init(model, key)
    assert list(params) == ["encoder.weight"]
    x, y = torch.ones(5, 3), torch.zeros(5)
    mean, record = trace(model, params, key, x, y)
    assert set(record.latents) == {"heads.0.weight", "heads.0.bias", "sigma"}
    weight = record.latents["heads.0.weight"]
    torch.testing.assert_close(
        mean, (body(x) @ weight.mT).squeeze(-1) + record.latents["heads.0.bias"]
    )
    density = log_density(model, params, record.latents, x, y)
    torch.testing.assert_close(density, record.log_density)


def test_copies_and_pickles(key: random.Key) -> None:
    model = lift(mlp(), {"0.*": fan_in_normal()}, frozen="2.bias", reinitialize=True)
    again = pickle.loads(pickle.dumps(model))
    x = torch.ones(2, 3)
    params = init(model, key)
    assert list(params) == list(init(again, key)) == ["2.weight"]
    assert torch.equal(apply(model, params, key, x), apply(again, params, key, x))
    double = to(model, torch.float64)
    wide = init(double, key)
    assert wide["2.weight"].dtype == torch.float64
    assert apply(double, wide, key, x.double()).dtype == torch.float64


def test_replace(key: random.Key) -> None:
    model = lift(mlp(), STANDARD, frozen=())
    changed = replace(model, {"0.weight": PyroParam(torch.zeros(4, 3))})
    assert list(init(changed, key)) == ["0.weight"]
    nested = Regression(lift(nn.Linear(3, 4)), (lift(nn.Linear(4, 1)),))
    changes = {"heads.0.bias": PyroSample(dist.Normal(torch.zeros(1), 1.0).to_event(1))}
    assert "heads.0.bias" not in init(replace(nested, changes), key)
    with pytest.raises(UnknownNameError, match=r"'0\.wieght'.*Did you mean '0\.weight'"):
        replace(model, {"0.wieght": PyroParam(torch.zeros(4, 3))})


def test_a_guide_and_svi(key: random.Key) -> None:
    model = Regression(lift(nn.Linear(3, 4), fan_in_normal()), (lift(nn.Linear(4, 1), STANDARD),))
    x, y = torch.ones(5, 3), torch.zeros(5)
    guide = AutoNormal(model)
    params = init(guide, key, x, y)
    assert "locs.encoder.weight" in params
    svi = SVI(model, guide, torchopt.adam(1e-2), Trace_ELBO(num_particles=3))
    state = svi.init(key, x, y)
    state, loss = svi.step(state, x, y)
    assert torch.isfinite(loss)


def test_vmap_over_params_and_keys(key: random.Key) -> None:
    model, x = lift(mlp(), {"2.*": STANDARD}, reinitialize=True), torch.ones(5, 3)
    keys = random.split(key, 3)
    params = torch.vmap(lambda key: init(model, key))(keys)

    def run(params: dict[str, Tensor], key: random.Key) -> Tensor:
        out: Tensor = apply(model, params, key, x)
        return out

    stacked = torch.vmap(run)(params, keys)
    for i in range(3):
        one = {name: value[i] for name, value in params.items()}
        torch.testing.assert_close(stacked[i], run(one, random.Key(keys[i])))


# Roles and priors


def test_frozen_parameters(key: random.Key) -> None:
    net = mlp()
    net[0].weight.requires_grad_(False)
    model = lift(net, frozen=["2.*"])
    assert list(init(model, key)) == ["0.bias"]
    y = apply(model, init(model, key), key, torch.ones(1, 3))
    assert not y.requires_grad, "nothing leads back to the network"
    torch.testing.assert_close(y, net(torch.ones(1, 3)))


def test_a_prior_for_all_is_for_all_that_are_not_frozen(key: random.Key) -> None:
    model = lift(mlp(), STANDARD, frozen="0.*")
    assert init(model, key) == {}
    _, record = trace(model, {}, key, torch.ones(1, 3))
    assert set(record.latents) == {"2.weight", "2.bias"}


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (STANDARD, NAMES),
        ({"*.weight": STANDARD}, ["0.weight", "2.weight"]),
        ({"2.*": STANDARD, "2.bias": None}, ["2.weight"]),
        ({nn.Linear: STANDARD}, NAMES),
        ({nn.Linear: STANDARD, "0.*": None}, ["2.weight", "2.bias"]),
        ({"*": STANDARD, "*.bias": STANDARD}, NAMES),
        (lambda name, value: STANDARD if value.dim() == 2 else None, ["0.weight", "2.weight"]),
        ({"0.*": lambda name, value: STANDARD if "bias" in name else None}, ["0.bias"]),
    ],
)
def test_which_parameters_get_the_prior(prior: Mapping[str, None], expected: list[str]) -> None:
    key, model = random.key(1), lift(mlp(), prior)
    _, record = trace(model, init(model, key), key, torch.ones(1, 3))
    assert sorted(record.latents) == sorted(expected)
    assert set(init(model, key)) == set(NAMES) - set(expected)


def test_priors_are_given_the_shape(key: random.Key) -> None:
    cov = torch.eye(3)
    prior = {
        "0.weight": dist.MultivariateNormal(torch.zeros(3), cov),
        "0.bias": dist.Normal(torch.zeros(4), 1.0),
        "2.*": STANDARD,
    }
    model = lift(mlp(), prior)
    _, record = trace(model, {}, key, torch.ones(1, 3))
    shapes = {name: list(value.shape) for name, value in record.latents.items()}
    assert shapes == {"0.weight": [4, 3], "0.bias": [4], "2.weight": [1, 4], "2.bias": [1]}
    assert all(value.shape == () for value in record.log_densities.values())


def test_fan_in_priors() -> None:
    conv, weight = nn.Conv2d(2, 3, 5), torch.zeros(3, 2, 5, 5)
    fan_in, _ = nn.init._calculate_fan_in_and_fan_out(weight)
    for rule in (fan_in_normal(2.0, bias=0.5), fan_in_laplace(2.0, bias=0.5)):
        prior, of_bias = rule("weight", weight), rule("bias", torch.zeros(3))
        assert prior is not None
        assert of_bias is not None
        assert prior.event_shape == weight.shape
        torch.testing.assert_close(prior.variance.sqrt(), torch.full_like(weight, 2 / fan_in**0.5))
        torch.testing.assert_close(of_bias.variance.sqrt(), torch.full((3,), 0.5))
        _, record = trace(lift(conv, rule), {}, random.key(1), torch.ones(1, 2, 5, 5))
        assert set(record.latents) == {"weight", "bias"}
    with pytest.raises(DeclarationError, match=r"scale=0\.0.*positive"):
        fan_in_normal(0.0)


# Bad input


@pytest.mark.parametrize(
    ("prior", "frozen", "error", "match"),
    [
        ({"0.wieght": STANDARD}, (), UnknownNameError, r"'0\.wieght'.*Did you mean '0\.weight'"),
        (None, "1.*", UnknownNameError, r"frozen has the pattern '1\.\*'.*no parameter"),
        ({nn.Conv2d: STANDARD}, (), UnknownNameError, r"type Conv2d.*'Linear'"),
        (
            {"0.*": STANDARD, "*.bias": dist.Normal(0.0, 2.0)},
            (),
            DeclarationError,
            r"'0\.\*' and '\*\.bias'.*both match.*'0\.bias'.*different priors",
        ),
        (
            {nn.Linear: STANDARD, nn.Module: None},
            (),
            DeclarationError,
            r"Linear and Module .*both match",
        ),
        ({"0.*": STANDARD}, "*.bias", DeclarationError, r"'0\.bias' is frozen by '\*\.bias'"),
        ({"0.bias": dist.Normal(torch.zeros(3), 1.0)}, (), ShapeError, r"'0\.bias'.*\[3\].*\[4\]"),
        ({3: STANDARD}, (), DeclarationError, r"the key 3.*glob"),
        ({"0.bias": 1.0}, (), DeclarationError, r"'0\.bias' is 1\.0, which is no distribution"),
        (
            {"0.bias": torch.distributions.Normal(0.0, 1.0)},
            (),
            DeclarationError,
            r"It is torch's: write pyro\.distributions\.Normal",
        ),
    ],
)
def test_priors_that_cannot_be_meant(
    prior: Mapping[str, None], frozen: str, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        lift(mlp(), prior, frozen=frozen)


def test_priors_for_frozen_networks() -> None:
    net = mlp()
    net[0].requires_grad_(False)
    with pytest.raises(
        DeclarationError, match=r"'0\.\*' of the prior matches only .*requires_grad"
    ):
        lift(net, {"0.*": STANDARD})
    with pytest.raises(DeclarationError, match=r"a ReLU without learnable parameters"):
        lift(nn.ReLU(), STANDARD)


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (nn.Linear, r"the class Linear.*Write lift\(Linear\(\.\.\.\)\)"),
        (lift(nn.ReLU()), r"no torch\.nn module.*A Module needs no lift"),
        (3, r"given 3, which is no torch\.nn module"),
        (nn.LazyLinear(2), r"'weight' of a LazyLinear has no shape yet"),
        (pyro.nn.PyroModule[nn.Linear](2, 1), r"PyroModule"),
    ],
    ids=repr,
)
def test_what_cannot_be_lifted(net: nn.Module, match: str) -> None:
    with pytest.raises(DeclarationError, match=match):
        lift(net)


def test_unknown_parameters_are_named(key: random.Key) -> None:
    model = lift(mlp())
    params = init(model, key)
    with pytest.raises(UnknownNameError, match=r"'0\.wieght'.*'0\.weight'"):
        apply(model, {**params, "0.wieght": torch.zeros(1)}, key, torch.ones(1, 3))
