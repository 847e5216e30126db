"""TraceGraph_ELBO: Pyro's values and gradients at our draws, what is followed, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import infer as pyro_infer
from pyro import poutine
from pyro.distributions import constraints
from pyro.ops import provenance
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from purepyro import Module, PyroParam, init, random, trace
from purepyro._compat._pyro import Msg
from purepyro._errors import DeclarationError
from purepyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from purepyro.infer.losses._provenance import Provenance

Y = torch.tensor([0.3, 1.2, -0.5, 2.0])
_track: Callable[[Tensor, frozenset[str]], Tensor] = vars(provenance)["track_provenance"]
_provenance_of: Callable[[Tensor], frozenset[str]] = vars(provenance)["get_provenance"]
Program = Callable[[Tensor], object]


class OurDraws(Messenger):
    """Gives Pyro's guide our draws; of Normals, our noise."""

    def __init__(self, draws: dict[str, Tensor]) -> None:
        super().__init__()
        self._draws = draws

    def _pyro_sample(self, msg: Msg) -> None:
        if msg["name"] not in self._draws or msg["is_observed"] or msg["value"] is not None:
            return
        fn, draw = msg["fn"], self._draws[msg["name"]].detach()
        if isinstance(fn, dist.Normal):
            draw = fn.loc + fn.scale * ((draw - fn.loc) / fn.scale).detach()
        else:  # what Pyro's own draw would have: the provenance of its distribution
            draw = _track(draw, _provenance_of(fn.log_prob(draw)))
        msg["value"], msg["done"] = draw, True


def chain_model(y: Tensor) -> None:
    """Discrete sites that depend on one another, and one that does not."""
    noise = pyro.param("noise", torch.tensor(0.7), constraint=constraints.positive)
    a = pyro.sample("a", dist.Bernoulli(0.3))
    b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    pyro.sample("c", dist.Bernoulli(0.4))
    z = pyro.sample("z", dist.Normal(b, 1.0))
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.5, 0.2])))
        pyro.sample("y", dist.Normal(z + k, noise), obs=y)


def chain_guide(y: Tensor) -> None:
    """A reparameterised site between discrete ones: `b` to `z` to `k`."""
    p = pyro.param("p", torch.tensor([0.3, 0.6, 0.5]), constraint=constraints.unit_interval)
    pyro.sample("a", dist.Bernoulli(p[0]))
    b = pyro.sample("b", dist.Bernoulli(p[1]))
    pyro.sample("c", dist.Bernoulli(p[2]))
    at = pyro.param("at", torch.tensor(0.4))
    z = pyro.sample("z", dist.Normal(at + 0.5 * b, 0.5))
    logits = pyro.param("logits", torch.tensor([[0.1, 0.2, 0.3]]).repeat(len(y), 1))
    with pyro.plate("rows", len(y)):
        pyro.sample("k", dist.Categorical(logits=logits + z))


def scaled(fn: Program) -> Program:
    """The program with all in a scale, as of a subsample."""
    wrapped: Program = poutine.scale(fn, scale=2.5)
    return wrapped


def normal_model(y: Tensor) -> None:
    """No discrete site."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def normal_guide(y: Tensor) -> None:
    """For `normal_model`."""
    at = pyro.param("at", torch.tensor(0.4))
    pyro.sample("z", dist.Normal(at, 0.5))


PROGRAMS: dict[str, tuple[Program, Program]] = {
    "chain": (chain_model, chain_guide),
    "scaled": (scaled(chain_model), scaled(chain_guide)),
    "normal": (normal_model, normal_guide),
}


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradients_are_pyros(name: str, number: int) -> None:
    model, guide = PROGRAMS[name]
    key, start = random.key(number), random.key(7)
    params = {**init(guide, start, Y), **init(model, start, Y)}
    gradients, value = torch.func.grad_and_value(
        lambda params: TraceGraph_ELBO().loss(model, guide, params, key, Y)
    )(params)
    draws = trace(guide, init(guide, start, Y), key, Y)[1].latents
    with OurDraws(draws):
        expected = pyro_infer.TraceGraph_ELBO().loss_and_grads(model, guide, Y)
    torch.testing.assert_close(value.item(), expected, rtol=1e-5, atol=1e-5)
    store = pyro.get_param_store()
    for parameter, gradient in gradients.items():
        other = store._params[parameter].grad
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_particles_are_the_mean_of_singles(key: random.Key, name: str) -> None:
    model, guide = PROGRAMS[name]
    params = {**init(guide, key, Y), **init(model, key, Y)}

    def found(elbo: TraceGraph_ELBO, key: random.Key) -> dict[str, Tensor]:
        gradients, loss = torch.func.grad_and_value(
            lambda params: elbo.loss(model, guide, params, key, Y)
        )(params)
        return {**gradients, "<loss>": loss}

    singles = [found(TraceGraph_ELBO(), random.Key(one)) for one in random.split(key, 4)]
    expected = {n: torch.stack([single[n] for single in singles]).mean(0) for n in singles[0]}
    for chunk_size in (None, 3):
        together = found(TraceGraph_ELBO(4, chunk_size), key)
        torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)


def test_the_value_and_the_expected_gradient_are_those_of_trace_elbo(key: random.Key) -> None:
    """Means of 20,000 gradients in a program of three discrete sites, within 5 standard errors."""
    model, guide = PROGRAMS["chain"]
    params = {**init(guide, key, Y), **init(model, key, Y)}
    keys = random.split(key, 20_000)

    def gradients(elbo: Trace_ELBO | TraceGraph_ELBO) -> tuple[dict[str, Tensor], Tensor]:
        def one(key: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            grad = torch.func.grad_and_value(
                lambda params: elbo.loss(model, guide, params, random.Key(key), Y)
            )
            found: tuple[dict[str, Tensor], Tensor] = grad(params)
            return found

        return torch.vmap(one)(keys)

    graph, graph_losses = gradients(TraceGraph_ELBO(kl_weight=0.5))
    plain, plain_losses = gradients(Trace_ELBO(kl_weight=0.5))
    torch.testing.assert_close(graph_losses, plain_losses, rtol=1e-4, atol=1e-4)
    for name in params:
        error = (graph[name] - plain[name]).std(0) / len(keys) ** 0.5
        assert bool(((graph[name] - plain[name]).mean(0).abs() <= 5 * error + 1e-4).all()), name
    assert bool((graph["p"].std(0)[[0, 2]] < 0.5 * plain["p"].std(0)[[0, 2]]).all())


def test_ensembles_are_a_vmap(key: random.Key) -> None:
    model, guide = PROGRAMS["chain"]
    params = [
        {**init(guide, random.Key(one), Y), **init(model, random.Key(one), Y)}
        for one in random.split(key, 3)
    ]
    keys = random.split(random.key(1), 3)

    def gradient(key: Tensor, params: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.func.grad(
            lambda params: TraceGraph_ELBO().loss(model, guide, params, random.Key(key), Y)
        )(params)
        return found

    stacked = {name: torch.stack([member[name] for member in params]) for name in params[0]}
    together = torch.vmap(gradient)(keys, stacked)
    for i in range(3):
        alone = gradient(keys[i], params[i])
        torch.testing.assert_close({n: g[i] for n, g in together.items()}, alone)


class Net(Module):
    """A Module with a network between its sites."""

    net: nn.Linear

    def forward(self, y: Tensor) -> None:
        a = pyro.sample("a", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1))
        pyro.sample("b", dist.Bernoulli(0.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(self.net(a), 1.0), obs=y)


class NetGuide(Module):
    """For `Net`."""

    logits = PyroParam(torch.zeros(3))

    def forward(self, y: Tensor) -> None:
        logits = self.logits
        pyro.sample("a", dist.Bernoulli(logits=logits[:2]).to_event(1))
        pyro.sample("b", dist.Bernoulli(logits=logits[2]))


def test_networks_are_followed(key: random.Key) -> None:
    """The likelihood is a cost of `a`, through the network, and none of `b`."""
    model, guide = Net(nn.Linear(2, 4)), NetGuide()
    params = {**init(guide, key), **init(model, key)}

    def gradient(elbo: Trace_ELBO | TraceGraph_ELBO, y: Tensor) -> Tensor:
        gradients: dict[str, Tensor] = torch.func.grad(
            lambda params: elbo.loss(model, guide, params, key, y)
        )(params)
        return gradients["logits"]

    graph = gradient(TraceGraph_ELBO(), Y) - gradient(TraceGraph_ELBO(), Y + 10)
    plain = gradient(Trace_ELBO(), Y) - gradient(Trace_ELBO(), Y + 10)
    torch.testing.assert_close(graph[:2], plain[:2], rtol=1e-4, atol=1e-4)
    assert graph[2] == 0
    assert plain[2].abs() > 1


def test_svi_trains_with_it(key: random.Key) -> None:
    model, guide = Net(nn.Linear(2, 4)), NetGuide()
    svi = SVI(model, guide, torchopt.adam(0.05), TraceGraph_ELBO(5))
    losses = svi.run(key, 60, Y).losses
    assert losses[-10:].mean() < losses[:10].mean() - 0.5


def test_what_is_followed() -> None:
    source, other = torch.zeros(3), torch.zeros(3)
    broadcast: Callable[..., tuple[Tensor, Tensor]] = vars(torch)["broadcast_tensors"]
    with Provenance() as followed:
        followed.add(source, frozenset({"k"}))
        written, in_place = torch.zeros(3), torch.zeros(3)
        written[0] = source[0]
        in_place.add_(source)
        augmented = torch.zeros(3)
        augmented += source
        out = torch.zeros(3)
        torch.add(source, 1, out=out)
        _, handed_through = broadcast(source, other)
        stacked = torch.stack([other, source])
        first, _ = torch.max(stacked, 0)
        free = other + 1
    for tensor in (written, in_place, augmented, out, stacked, first):
        assert followed.of(tensor) == {"k"}
    assert handed_through is other
    assert not followed.of(free, other)
    assert followed.of({"a": [free, first]}) == {"k"}


def test_baselines_are_refused(key: random.Key) -> None:
    settings: Any = {"baseline": {"use_decaying_avg_baseline": True}}

    def model() -> None:
        pyro.sample("k", dist.Bernoulli(0.5))

    def guide() -> None:
        pyro.sample("k", dist.Bernoulli(0.5), infer=settings)

    with pytest.raises(DeclarationError, match=r"site 'k' has .*baseline.*num_particles=..."):
        TraceGraph_ELBO().loss(model, guide, {}, key)
