"""The losses: Pyro's values and gradients at our draws, particles, parts and weights, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import infer as pyro_infer
from pyro import poutine
from pyro.distributions import constraints
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from models import regression, regression_data
from purepyro import PurepyroError, init, random, trace
from purepyro._compat._pyro import Msg
from purepyro._errors import DeclarationError, DtypeError, ShapeError
from purepyro.infer import (
    ELBO,
    SVI,
    AutoNormal,
    RenyiELBO,
    Trace_ELBO,
    TraceMeanField_ELBO,
)

Theirs: TypeAlias = (
    pyro_infer.Trace_ELBO
    | pyro_infer.TraceMeanField_ELBO
    | pyro_infer.TraceGraph_ELBO
    | pyro_infer.RenyiELBO
)
Y = torch.tensor([0.3, 1.2, -0.5, 2.0])


class OurDraws(Messenger):
    """Gives Pyro's guide our draws, particle by particle; of Normals, our noise."""

    def __init__(self, particles: list[dict[str, Tensor]]) -> None:
        super().__init__()
        self._left = {name: [draws[name] for draws in particles] for name in particles[0]}

    def _pyro_sample(self, msg: Msg) -> None:
        if msg["name"] not in self._left or msg["is_observed"] or msg["value"] is not None:
            return
        fn, draw = msg["fn"], self._left[msg["name"]].pop(0).detach()
        base = fn.base_dist if isinstance(fn, dist.Independent) else fn
        if isinstance(base, dist.Normal):
            noise = (draw - base.loc) / base.scale
            draw = base.loc + base.scale * noise.detach()
        msg["value"], msg["done"] = draw, True


def check_against_pyro(
    ours: ELBO,
    theirs: Theirs,
    model: Callable[..., object],
    guide: Callable[..., object],
    key: random.Key,
    *args: Any,
    gradients_too: bool = True,
) -> None:
    """Value and all gradients of a loss are Pyro's, fed with the same draws."""
    start = random.key(7)
    params = {**init(guide, start, *args), **init(model, start, *args)}
    gradients, value = torch.func.grad_and_value(
        lambda params: ours.loss(model, guide, params, key, *args)
    )(params)
    keys = [key] if theirs.num_particles == 1 else random.split(key, theirs.num_particles)
    own = init(guide, start, *args)
    draws = [trace(guide, own, random.Key(one), *args)[1].latents for one in keys]
    with OurDraws(draws):
        expected = theirs.loss_and_grads(model, guide, *args)
    torch.testing.assert_close(value.item(), float(expected), rtol=1e-5, atol=1e-5)
    store = pyro.get_param_store()
    assert set(store._params) == set(params)
    for name, gradient in gradients.items() if gradients_too else ():
        other = store._params[name].grad
        other = torch.zeros_like(gradient) if other is None else other
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5, msg=name)


def model(y: Tensor) -> None:
    """A global and a local latent site, a learnable noise, a scaled plate."""
    noise = pyro.param("noise", torch.tensor(0.7), constraint=constraints.positive)
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with poutine.scale(scale=2.5), pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("y", dist.Normal(z, noise), obs=y)


def guide(y: Tensor) -> None:
    """Normals, as a mean field."""
    at = pyro.param("loc_at", torch.tensor(0.4))
    pyro.sample("loc", dist.Normal(at, 0.5))
    z_at = pyro.param("z_at", torch.linspace(-1.0, 1.0, len(y)))
    z_scale = pyro.param("z_scale", torch.full((len(y),), 0.6), constraint=constraints.positive)
    with poutine.scale(scale=2.5), pyro.plate("rows", len(y)):
        pyro.sample("z", dist.Normal(z_at, z_scale))


def rows_model(y: Tensor) -> None:
    """All sites in one plate; one of them discrete."""
    noise = pyro.param("noise", torch.tensor(0.7), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.5, 0.2])))
        z = pyro.sample("z", dist.Normal(k.to(y.dtype), 1.0))
        pyro.sample("y", dist.Normal(z, noise), obs=y)


def rows_guide(y: Tensor) -> None:
    """A Categorical, and a Normal that depends on it."""
    logits = pyro.param("logits", torch.tensor([[0.1, 0.2, 0.3]]).repeat(len(y), 1))
    at = pyro.param("z_at", torch.linspace(-1.0, 1.0, len(y)))
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(logits=logits))
        pyro.sample("z", dist.Normal(at + 0.3 * k, 0.8))


PROGRAMS = {"normal": (model, guide), "rows": (rows_model, rows_guide)}
ANY_GUIDE: list[tuple[ELBO, Theirs]] = [
    (Trace_ELBO(), pyro_infer.Trace_ELBO()),
    (Trace_ELBO(num_particles=3), pyro_infer.Trace_ELBO(num_particles=3)),
    (RenyiELBO(), pyro_infer.RenyiELBO()),
    (RenyiELBO(0.5, num_particles=5), pyro_infer.RenyiELBO(0.5, num_particles=5)),
    (RenyiELBO(-1.5, num_particles=3), pyro_infer.RenyiELBO(-1.5, num_particles=3)),
    (RenyiELBO(0.5, num_particles=1), pyro_infer.RenyiELBO(0.5, num_particles=1)),
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("number", range(len(ANY_GUIDE)))
def test_value_and_gradients_are_pyros(key: random.Key, number: int, program: str) -> None:
    ours, theirs = ANY_GUIDE[number]
    # Pyro's gradient of RenyiELBO is wrong at discrete sites; ours is tested against the sum.
    same = program != "rows" or not isinstance(ours, RenyiELBO)
    check_against_pyro(ours, theirs, *PROGRAMS[program], key, Y, gradients_too=same)


@pytest.mark.parametrize("count", [1, 3])
def test_mean_field_is_pyros(key: random.Key, count: int) -> None:
    ours, theirs = TraceMeanField_ELBO(count), pyro_infer.TraceMeanField_ELBO(num_particles=count)
    check_against_pyro(ours, theirs, model, guide, key, Y)


def unknown_model(y: Tensor) -> None:
    """A site whose divergence has no formula."""
    z = pyro.sample("z", dist.StudentT(3.0, 0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0).expand([4]).to_event(1), obs=y)


def unknown_guide(y: Tensor) -> None:
    """A Normal."""
    at = pyro.param("at", torch.tensor(0.4))
    pyro.sample("z", dist.Normal(at, 0.5))


def test_mean_field_without_a_formula_is_pyros(key: random.Key) -> None:
    theirs = pyro_infer.TraceMeanField_ELBO()
    check_against_pyro(TraceMeanField_ELBO(), theirs, unknown_model, unknown_guide, key, Y)


def test_mean_field_has_no_noise_where_all_is_analytic() -> None:
    def prior() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def guide() -> None:
        at = pyro.param("at", torch.tensor([1.0, -2.0, 0.5]))
        pyro.sample("z", dist.Normal(at, 2.0).to_event(1))

    params = init(guide, random.key(0))
    keys = random.split(random.key(1), 6)

    def gradient(elbo: ELBO, key: Tensor) -> Tensor:
        grad = torch.func.grad(lambda p: elbo.loss(prior, guide, p, random.Key(key)))
        gradients: dict[str, Tensor] = grad(params)
        return gradients["at"]

    analytic = torch.stack([gradient(TraceMeanField_ELBO(), key) for key in keys])
    torch.testing.assert_close(analytic, params["at"].expand(6, 3), rtol=0, atol=1e-6)
    assert torch.stack([gradient(Trace_ELBO(), key) for key in keys]).std(0).min() > 0.1


LOSSES: list[Callable[..., Trace_ELBO | TraceMeanField_ELBO]] = [Trace_ELBO, TraceMeanField_ELBO]


@pytest.mark.parametrize("loss", LOSSES)
def test_particles_are_the_mean_of_singles(
    key: random.Key, loss: Callable[..., Trace_ELBO | TraceMeanField_ELBO]
) -> None:
    params = {**init(guide, key, Y), **init(model, key, Y)}
    keys = [random.Key(one) for one in random.split(key, 5)]
    singles = [loss().parts(model, guide, params, one, Y) for one in keys]
    for chunk_size in (None, 1, 2, 7):
        parts = loss(5, chunk_size).parts(model, guide, params, key, Y)
        for found, of_singles in zip(parts, zip(*singles, strict=True), strict=True):
            torch.testing.assert_close(found, torch.stack(of_singles).mean())


def test_renyi_is_the_importance_weighted_bound(key: random.Key) -> None:
    params = {**init(guide, key, Y), **init(model, key, Y)}
    keys = [random.Key(one) for one in random.split(key, 6)]
    bounds = torch.stack([-Trace_ELBO().loss(model, guide, params, one, Y) for one in keys])
    expected = -(torch.logsumexp(bounds, 0) - torch.tensor(6.0).log())
    for chunk_size in (None, 4):
        loss = RenyiELBO(0, 6, chunk_size).loss(model, guide, params, key, Y)
        torch.testing.assert_close(loss, expected)


def test_renyi_towards_one_is_the_elbo(key: random.Key) -> None:
    y = Y.double()

    def program(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
        pyro.sample("y", dist.Normal(z, 1.0).expand([4]).to_event(1), obs=y)

    def normal(y: Tensor) -> None:
        at = pyro.param("at", torch.tensor(0.4, dtype=torch.float64))
        pyro.sample("z", dist.Normal(at, 0.5))

    params = init(normal, key, y)
    for elbo in (RenyiELBO(1 - 1e-7, 4), RenyiELBO(1 + 1e-7, 4)):
        near = _losses(elbo, program, normal, key, y)(params)
        at_one = _losses(Trace_ELBO(4), program, normal, key, y)(params)
        torch.testing.assert_close(near, at_one, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------ parts and weights


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, torch.tensor(0.3)])
def test_the_parts_make_the_loss(key: random.Key, program: str, weight: Tensor | float) -> None:
    model, guide = PROGRAMS[program]
    params = {**init(guide, key, Y), **init(model, key, Y)}
    parts = Trace_ELBO(2, kl_weight=weight).parts(model, guide, params, key, Y)
    torch.testing.assert_close(parts.loss, weight * parts.kl - parts.log_likelihood)
    plain = Trace_ELBO(2).parts(model, guide, params, key, Y)
    torch.testing.assert_close(parts.kl, plain.kl)
    torch.testing.assert_close(parts.log_likelihood, plain.log_likelihood)


def test_the_weight_is_a_scale_of_the_latent_sites(key: random.Key) -> None:
    """So it is under Pyro, also where the guide has scores."""

    class Scaled(Messenger):
        def _pyro_sample(self, msg: Msg) -> None:
            if not msg["is_observed"]:
                msg["scale"] = msg["scale"] * 0.3

    for model, guide in PROGRAMS.values():
        params = {**init(guide, key, Y), **init(model, key, Y)}
        weighted = _losses(Trace_ELBO(kl_weight=0.3), model, guide, key)
        by_hand = _losses(Trace_ELBO(), Scaled()(model), Scaled()(guide), key)
        torch.testing.assert_close(weighted(params), by_hand(params))


def _losses(
    loss: ELBO,
    model: Callable[..., object],
    guide: Callable[..., object],
    key: random.Key,
    y: Tensor = Y,
) -> Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Tensor]]:
    """The gradient and the value of a loss, as a function of the parameters."""
    return torch.func.grad_and_value(lambda params: loss.loss(model, guide, params, key, y))


def test_annealing_traces_once(key: random.Key) -> None:
    """One graph of a step serves all weights, and so does one vmap."""
    svi = SVI(model, guide, torchopt.sgd(0.1))
    state = svi.init(key, Y)

    def step(weight: Tensor, y: Tensor) -> Tensor:
        return attrs.evolve(svi, loss=Trace_ELBO(kl_weight=weight)).step(state, y)[1]

    with dist.validation_enabled(False):  # its branches cannot be traced
        graph = make_fx(step)(torch.tensor(0.1), Y)
    weights = torch.tensor([0.0, 0.5, 1.0])
    expected = torch.stack([step(weight, Y) for weight in weights])
    torch.testing.assert_close(torch.stack([graph(weight, Y) for weight in weights]), expected)
    torch.testing.assert_close(torch.vmap(step, (0, None))(weights, Y), expected)


def test_svi_trains_with_each_loss(key: random.Key) -> None:
    regress, (x, y) = regression(), regression_data()
    for loss in (TraceMeanField_ELBO(), RenyiELBO(0.0, 4), Trace_ELBO(kl_weight=0.5)):
        svi = SVI(regress, AutoNormal(regress), torchopt.adam(0.05), loss)
        losses = svi.run(key, 60, x, y).losses
        assert losses[-10:].mean() < losses[:10].mean() - 10


def test_ensembles_are_a_vmap(key: random.Key) -> None:
    for loss in (Trace_ELBO(2), TraceMeanField_ELBO(2), RenyiELBO(0.0, 3)):
        svi = SVI(model, guide, torchopt.sgd(0.01), loss)
        keys = random.split(key, 3)
        states = [svi.init(random.Key(one), Y) for one in keys]
        losses = torch.stack([svi.step(state, Y)[1] for state in states])
        params = {n: torch.stack([s.params[n] for s in states]) for n in states[0].params}

        def member(key: Tensor, params: dict[str, Tensor], loss: ELBO = loss) -> Tensor:
            step_key = random.fold_in(random.Key(key), 0)
            return loss.loss(model, guide, params, step_key, Y)

        torch.testing.assert_close(torch.vmap(member)(keys, params), losses)


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO, lambda n: RenyiELBO(0.0, n)])
@pytest.mark.parametrize("count", [0, -3, 1.5, True])
def test_a_wrong_number_of_particles(loss: Callable[[object], object], count: object) -> None:
    with pytest.raises(ShapeError, match=rf"num_particles is {count}, so .* num_particles >= 1"):
        loss(count)


def test_a_wrong_chunk_size() -> None:
    with pytest.raises(ShapeError, match=r"chunk_size is 0, so no .* chunk_size >= 1, or None"):
        Trace_ELBO(2, 0)
    with pytest.raises(ShapeError, match=r"chunk_size is -1"):
        RenyiELBO(0.0, 2, -1)


def test_a_wrong_weight() -> None:
    with pytest.raises(ShapeError, match=r"kl_weight is float32\[3\], but .* 0-d tensor"):
        Trace_ELBO(kl_weight=torch.ones(3))
    wrong: Any = "0.1"
    with pytest.raises(DtypeError, match=r"kl_weight is '0\.1', which cannot .* Give a number"):
        TraceMeanField_ELBO(kl_weight=wrong)


def test_a_wrong_order() -> None:
    with pytest.raises(DeclarationError, match=r"alpha is 1, where .* write Trace_ELBO"):
        RenyiELBO(1.0)
    wrong: Any = "0"
    for alpha in (float("inf"), wrong):
        with pytest.raises(DtypeError, match=r"alpha is .*no order .* Give a finite number"):
            RenyiELBO(alpha)


def test_a_discrete_site_has_no_place_in_a_mean_field(key: random.Key) -> None:
    params = {**init(rows_guide, key, Y), **init(rows_model, key, Y)}
    with pytest.raises(
        DeclarationError, match=r"site 'k' is a Categorical, .* reparameterised.* TraceEnum_ELBO"
    ) as caught:
        TraceMeanField_ELBO().loss(rows_model, rows_guide, params, key, Y)
    assert isinstance(caught.value, PurepyroError)


def test_another_order_of_sites_is_warned_of(key: random.Key) -> None:
    def model() -> None:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(b, 1.0))

    def guide() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Normal(a, 1.0))

    with pytest.warns(UserWarning, match=r"come as \['b', 'a'\], the guide's as \['a', 'b'\]"):
        TraceMeanField_ELBO().loss(model, guide, {}, key)
