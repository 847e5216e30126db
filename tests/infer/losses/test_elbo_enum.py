"""Enumeration: Pyro's values and gradients, known answers, ensembles, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import infer as pyro_infer
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import config_enumerate
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro import Module, PyroParam, constrain, init, random, trace
from purepyro._compat._pyro import Msg
from purepyro._errors import DeclarationError, MissingNameError, ShapeError, UnknownNameError
from purepyro.infer import SVI, AutoNormal, SVIState, Trace_ELBO, TraceEnum_ELBO

Step: TypeAlias = Callable[[SVIState, Tensor], tuple[SVIState, Tensor]]
Y = torch.tensor([0.0, 1.0, 10.0, 11.0, 12.0])
UNMARKED: Any = {"enumerate": None}  # which Pyro takes, and its types do not
START = torch.tensor([1.0, 9.0])


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
        msg["value"], msg["done"] = draw, True


def weights() -> Tensor:
    """A learnable simplex."""
    value: Tensor = pyro.param("weights", torch.tensor([0.4, 0.6]), constraint=constraints.simplex)
    return value


@config_enumerate
def mixture(y: Tensor) -> None:
    """The assignments are the model's only latent sites."""
    locs = pyro.param("locs", START.clone())
    w = weights()
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(w))
        pyro.sample("y", dist.Normal(locs[k], 1.0), obs=y)


def nothing(y: Tensor) -> None:
    """No site at all."""


@config_enumerate
def bayesian(y: Tensor) -> None:
    """Drawn sites above, enumerated ones below, a scale and a mask."""
    with pyro.plate("clusters", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    w = weights()
    with poutine.scale(scale=2.0), pyro.plate("rows", len(y)), poutine.mask(mask=y < 11.5):
        k = pyro.sample("k", dist.Categorical(w))
        pyro.sample("y", dist.Normal(locs[k], 1.0), obs=y)


def locs_guide(y: Tensor) -> None:
    """For the drawn sites of `bayesian`."""
    at = pyro.param("at", START.clone())
    with pyro.plate("clusters", 2):
        pyro.sample("locs", dist.Normal(at, 0.3))


@config_enumerate
def locs_and_rows_guide(y: Tensor) -> None:
    """The assignments are enumerated in the guide."""
    locs_guide(y)
    logits = pyro.param("logits", torch.tensor([[0.3, -0.2]]).repeat(len(y), 1))
    with poutine.scale(scale=2.0), pyro.plate("rows", len(y)), poutine.mask(mask=y < 11.5):
        pyro.sample("k", dist.Categorical(logits=logits))


def scored_guide(y: Tensor) -> None:
    """The assignments are drawn, with scores."""
    locs_guide(y)
    logits = pyro.param("logits", torch.tensor([[0.3, -0.2]]).repeat(len(y), 1))
    with poutine.scale(scale=2.0), pyro.plate("rows", len(y)), poutine.mask(mask=y < 11.5):
        pyro.sample("k", dist.Categorical(logits=logits), infer=UNMARKED)


def tree(y: Tensor) -> None:
    """An enumerated site outside of the plate, one inside that depends on it."""
    probs = pyro.param(
        "probs", torch.tensor([[0.2, 0.8], [0.7, 0.3]]), constraint=constraints.simplex
    )
    top = pyro.sample("top", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(probs[top.long()]), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(START[k] + top, 1.0), obs=y)


def tree_guide(y: Tensor) -> None:
    """The outer site is enumerated in the guide, the inner in the model."""
    p = pyro.param("p", torch.tensor(0.4), constraint=constraints.unit_interval)
    pyro.sample("top", dist.Bernoulli(p), infer={"enumerate": "parallel"})


def scored_tree_guide(y: Tensor) -> None:
    """The outer site is drawn, with scores."""
    p = pyro.param("p", torch.tensor(0.4), constraint=constraints.unit_interval)
    pyro.sample("top", dist.Bernoulli(p))


def dependent_guide(y: Tensor) -> None:
    """Both are enumerated in the guide, one given the other."""
    tree_guide(y)
    top = pyro.sample("aux", dist.Bernoulli(0.5), infer={"is_auxiliary": True})
    logits = pyro.param("logits", torch.tensor([[0.3, -0.2]]).repeat(len(y), 1))
    with pyro.plate("rows", len(y)):
        pyro.sample("k", dist.Categorical(logits=logits + top), infer={"enumerate": "parallel"})


@config_enumerate
def chain(y: Tensor) -> None:
    """A hidden Markov model."""
    moves = pyro.param(
        "moves", torch.tensor([[0.9, 0.1], [0.3, 0.7]]), constraint=constraints.simplex
    )
    k: int | Tensor = 0
    for i in pyro.markov(range(len(y))):
        k = pyro.sample(f"k_{i}", dist.Categorical(moves[k]))
        pyro.sample(f"y_{i}", dist.Normal(START[k], 2.0), obs=y[i])


@config_enumerate
def chains(y: Tensor) -> None:
    """Several chains side by side, with a weight that all share."""
    moves = pyro.param(
        "moves", torch.tensor([[0.9, 0.1], [0.3, 0.7]]), constraint=constraints.simplex
    )
    at = pyro.sample("at", dist.Normal(0.0, 1.0))
    with pyro.plate("chains", 3, dim=-1):
        k: int | Tensor = 0
        for i in pyro.markov(range(3)):
            k = pyro.sample(f"k_{i}", dist.Categorical(moves[k]))
            pyro.sample(f"y_{i}", dist.Normal(START[k] + at, 2.0), obs=y[i : i + 3])


def at_guide(y: Tensor) -> None:
    """For the drawn site of `chains`."""
    loc = pyro.param("loc", torch.tensor(0.3))
    pyro.sample("at", dist.Normal(loc, 0.2))


PROGRAMS: dict[str, tuple[Callable[[Tensor], None], Callable[[Tensor], None]]] = {
    "mixture": (mixture, nothing),
    "drawn above": (bayesian, locs_guide),
    "in the guide": (bayesian, locs_and_rows_guide),
    "scored": (poutine.infer_config(bayesian, lambda site: UNMARKED), scored_guide),
    "guide and model": (tree, tree_guide),
    "scored above": (tree, scored_tree_guide),
    "dependent": (tree, dependent_guide),
    "chain": (chain, nothing),
    "chains": (chains, at_guide),
}


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
@pytest.mark.parametrize("nesting", [None, 2])
@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradients_are_pyros(key: random.Key, name: str, nesting: int | None) -> None:
    model, guide = PROGRAMS[name]
    start = random.key(7)
    params = {**init(guide, start, Y), **init(model, start, Y)}
    elbo = TraceEnum_ELBO(max_plate_nesting=nesting)
    gradients, value = torch.func.grad_and_value(
        lambda params: elbo.loss(model, guide, params, key, Y)
    )(params)
    draws = trace(guide, init(guide, start, Y), key, Y)[1].latents
    theirs = pyro_infer.TraceEnum_ELBO(max_plate_nesting=nesting or 1)
    with OurDraws(draws):
        expected = theirs.loss_and_grads(model, guide, Y)
    if name == "dependent":  # Pyro counts the guide's own draw, and then it is no bound
        expected -= dist.Bernoulli(0.5).log_prob(draws["aux"]).item()
    torch.testing.assert_close(value.item(), expected, rtol=1e-5, atol=1e-5)
    store = pyro.get_param_store()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(
            gradient,
            store._params[parameter].grad,
            rtol=1e-4,
            atol=1e-5,
            msg=f"{parameter}: {gradient}",
        )


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
@pytest.mark.parametrize("name", PROGRAMS)
def test_particles_are_the_mean_of_singles(key: random.Key, name: str) -> None:
    model, guide = PROGRAMS[name]
    params = {**init(guide, key, Y), **init(model, key, Y)}

    def found(elbo: TraceEnum_ELBO, key: random.Key) -> dict[str, Tensor]:
        gradients, parts = torch.func.grad_and_value(
            lambda params: elbo.loss(model, guide, params, key, Y)
        )(params)
        return {**gradients, "<loss>": parts}

    singles = [found(TraceEnum_ELBO(), random.Key(one)) for one in random.split(key, 4)]
    expected = {n: torch.stack([single[n] for single in singles]).mean(0) for n in singles[0]}
    for chunk_size in (None, 3):
        together = found(TraceEnum_ELBO(4, chunk_size), key)
        torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-4)


def test_without_a_mark_it_is_trace_elbo(key: random.Key) -> None:
    params = {**init(locs_guide, key, Y)}

    def model(y: Tensor) -> None:
        with pyro.plate("clusters", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(locs[0], locs[1].abs()), obs=y)

    with pytest.warns(UserWarning, match=r"found no site to enumerate, .* use Trace_ELBO"):
        parts = TraceEnum_ELBO(kl_weight=0.3).parts(model, locs_guide, params, key, Y)
    expected = Trace_ELBO(kl_weight=0.3).parts(model, locs_guide, params, key, Y)
    torch.testing.assert_close(parts, expected)


@pytest.mark.parametrize("name", ["in the guide", "drawn above"])
def test_the_parts_make_the_loss(key: random.Key, name: str) -> None:
    model, guide = PROGRAMS[name]
    params = {**init(guide, key, Y), **init(model, key, Y)}
    plain = TraceEnum_ELBO().parts(model, guide, params, key, Y)
    for weight in (0.0, 0.3, torch.tensor(0.3)):
        parts = TraceEnum_ELBO(kl_weight=weight).parts(model, guide, params, key, Y)
        torch.testing.assert_close(parts.loss, weight * parts.kl - parts.log_likelihood)
        torch.testing.assert_close(parts[1:], plain[1:])


def test_one_graph_serves_all_parameters(key: random.Key) -> None:
    model, guide = PROGRAMS["in the guide"]
    params = {**init(guide, key, Y), **init(model, key, Y)}

    def loss(params: dict[str, Tensor], key: Tensor) -> Tensor:
        return TraceEnum_ELBO(2).loss(model, guide, params, random.Key(key), Y)

    with dist.validation_enabled(False):  # its branches cannot be traced
        graph = make_fx(loss)(params, key)
    other = {name: param + 0.1 for name, param in params.items()}
    torch.testing.assert_close(graph(other, random.key(5)), loss(other, random.key(5)))


class Mixture(Module):
    """The mixture of two normals, of Pyro's tutorial, at its mode."""

    weights = PyroParam(torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
    locs = PyroParam(torch.tensor([1.0, 9.0]))
    scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)

    def forward(self, y: Tensor) -> None:
        weights, locs, scale = self.weights, self.locs, self.scale
        pyro.factor(
            "priors",
            dist.Dirichlet(0.5 * torch.ones(2)).log_prob(weights)
            + dist.LogNormal(0.0, 2.0).log_prob(scale)
            + dist.Normal(0.0, 10.0).log_prob(locs).sum(),
        )
        with pyro.plate("rows", len(y)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(locs[k], scale), obs=y)


class Assignments(Module):
    """No site: the mixture's parameters are points."""

    def forward(self, y: Tensor) -> None:
        pass


def test_the_mixture_of_the_tutorial(key: random.Key) -> None:
    """Weights .625/.375, locations 10.98/.499, scale .651, by Pyro's gmm tutorial."""
    svi = SVI(Mixture(), Assignments(), torchopt.adam(0.1), TraceEnum_ELBO(max_plate_nesting=1))
    state = svi.run(key, 250, Y).state
    found = constrain(Mixture(), state.params)
    expected = {
        "weights": torch.tensor([0.375, 0.625]),
        "locs": torch.tensor([0.499, 10.98]),
        "scale": torch.tensor(0.651),
    }
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.01)


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
def test_ensembles_are_a_vmap(key: random.Key) -> None:
    for name in ("mixture", "in the guide", "scored", "chains"):
        model, guide = PROGRAMS[name]
        svi = SVI(model, guide, torchopt.sgd(0.01), TraceEnum_ELBO())
        states = [svi.init(random.Key(one), Y) for one in random.split(key, 3)]
        losses = torch.stack([svi.step(state, Y)[1] for state in states])
        params = {n: torch.stack([s.params[n] for s in states]) for n in states[0].params}
        keys = torch.stack([state.key for state in states])
        steps = torch.stack([state.step for state in states])

        start = states[0]

        def member(
            key: Tensor,
            params: dict[str, Tensor],
            number: Tensor,
            step: Step = svi.step,
            start: SVIState = start,
        ) -> Tensor:
            state = start._replace(key=random.Key(key), params=params, step=number)
            return step(state, Y)[1]

        together = torch.vmap(member)(keys, params, steps)
        torch.testing.assert_close(together, losses)


def test_it_trains_with_an_automatic_guide(key: random.Key) -> None:
    guide = AutoNormal(poutine.block(bayesian, hide=["k"]))
    svi = SVI(bayesian, guide, torchopt.adam(0.1), TraceEnum_ELBO(2))
    losses = svi.run(key, 40, Y).losses
    assert losses[-1] < losses[0] - 10


def test_nothing_is_left_in_pyros_allocator(key: random.Key) -> None:
    allocator = vars(pyro.poutine.runtime._ENUM_ALLOCATOR)
    before = dict(allocator)
    params = init(mixture, key, Y)
    TraceEnum_ELBO().loss(mixture, nothing, params, key, Y)
    assert allocator == before
    with pytest.raises(MissingNameError):
        TraceEnum_ELBO().loss(bayesian, nothing, params, key, Y)
    assert allocator == before


def test_a_long_chain_costs_few_dimensions(key: random.Key) -> None:
    """Thirty enumerated sites would be thirty dimensions without `markov`."""
    y = torch.linspace(0.0, 10.0, 30)
    loss = TraceEnum_ELBO().loss(chain, nothing, init(chain, key, y), key, y)
    assert bool(loss.isfinite())


# --------------------------------------------------------------------------------------- refusals


def refused(
    model: Callable[[Tensor], object], guide: Callable[[Tensor], object], key: random.Key
) -> None:
    """Ask for the loss of a program which has none."""
    params = {**init(model, key, Y), **init(guide, key, Y)}
    TraceEnum_ELBO().loss(model, guide, params, key, Y)


def marked(fn: TorchDistributionMixin, **infer: object) -> Callable[[Tensor], object]:
    """A model or guide with the one site `k`."""

    def program(y: Tensor) -> object:
        settings: Any = {"enumerate": "parallel", **infer}
        value: object = pyro.sample("k", fn, infer=settings)
        return value

    return program


def test_a_missing_site(key: random.Key) -> None:
    with pytest.raises(MissingNameError, match=r"latent \['locs'\], .* not enumerated, .* mark"):
        refused(bayesian, nothing, key)


def test_a_site_too_many(key: random.Key) -> None:
    with pytest.raises(UnknownNameError, match=r"has the sites \['locs'\], .*is_auxiliary"):
        refused(mixture, locs_guide, key)


def test_sequential_enumeration(key: random.Key) -> None:
    model = marked(dist.Bernoulli(0.5), enumerate="sequential")
    with pytest.raises(DeclarationError, match=r"site 'k' is .*'sequential'.*default=\"parallel\""):
        refused(model, nothing, key)


def test_local_draws(key: random.Key) -> None:
    model = marked(dist.Normal(0.0, 1.0), num_samples=3)
    with pytest.raises(DeclarationError, match=r"site 'k' is .*num_samples=3 .*num_particles"):
        refused(model, nothing, key)


def test_no_finite_support(key: random.Key) -> None:
    model = marked(dist.Normal(0.0, 1.0))
    with pytest.raises(DeclarationError, match=r"site 'k' .* its Normal has no finite list"):
        refused(model, nothing, key)


def test_a_batch_without_a_plate(key: random.Key) -> None:
    model = marked(dist.Categorical(torch.ones(3, 2)))
    with pytest.raises(ShapeError, match=r"(?s)cannot be enumerated: at site 'k'.*Put every batch"):
        refused(model, nothing, key)


def test_a_wrong_nesting(key: random.Key) -> None:
    with pytest.raises(ShapeError, match=r"max_plate_nesting is -1, .* Give how deep"):
        TraceEnum_ELBO(max_plate_nesting=-1)
    params = init(mixture, key, Y)
    with pytest.raises(ShapeError, match=r"'k' lies in a plate of dim.* max_plate_nesting=1"):
        TraceEnum_ELBO(max_plate_nesting=0).loss(mixture, nothing, params, key, Y)


def test_observed_shapes_are_still_checked(key: random.Key) -> None:
    @config_enumerate
    def model(y: Tensor) -> None:
        with pyro.plate("rows", 5):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(k, 1.0), obs=y[:1])

    with pytest.raises(ShapeError, match=r"observed value of the site 'y' is float32\[1\]"):
        TraceEnum_ELBO(max_plate_nesting=1).loss(model, nothing, {}, key, Y)


def test_a_guide_may_take_gradients_itself(key: random.Key) -> None:
    """In the run that looks for plates too."""
    data = torch.tensor([0.0, 1.0, 3.0])

    @config_enumerate
    def model() -> None:
        pyro.sample("b", dist.Bernoulli(0.5))
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", 3):
            pyro.sample("obs", dist.Normal(loc, 1.0), obs=data)

    def guide() -> None:
        x = torch.tensor(0.0, requires_grad=True)
        fit = dist.Normal(x, 1.0).log_prob(data).sum()
        (step,) = torch.autograd.grad(fit, [x])
        pyro.sample("loc", dist.Normal(step / 3, 1.0))

    found = [
        TraceEnum_ELBO(max_plate_nesting=n).loss(model, guide, {}, key).detach() for n in (None, 1)
    ]
    torch.testing.assert_close(*found)
