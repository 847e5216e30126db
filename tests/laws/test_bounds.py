"""Law 14, a bound is a bound: no mean loss is below minus the log evidence, which is known here.

Evidences are sums over discrete sites and integrals over a grid of the one continuous site, in
float64. The mean loss is that of 1,000 keys under vmap; it may be 3 standard errors below. With the
guide's numbers drawn by Hypothesis, the whole file takes about a minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormalMessenger
from torch import Tensor

from purepyro import init, random
from purepyro.infer import (
    ELBO,
    AutoNormal,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

KEYS = 1_000
Y = torch.tensor([0.7, -1.2, 2.0, 0.4], dtype=torch.float64)
MASK = torch.tensor([True, False, True, True])
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
Model = Callable[[], None]
Guide = Callable[[Tensor, Tensor], None]


def f64(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.tensor(value, dtype=torch.float64)


def normal(loc: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> dist.Normal:
    """A normal in float64."""
    return dist.Normal(torch.as_tensor(loc, dtype=torch.float64), scale)


AUXILIARY: Any = {"is_auxiliary": True}


# ------------------------------------------------------------------- models with a known evidence


def shared() -> None:
    """One latent site for all data."""
    z = pyro.sample("z", normal())
    with pyro.plate("rows", 4):
        pyro.sample("y", normal(z), obs=Y)


def shared_masked() -> None:
    """With a row of the data masked out, and a factor."""
    z = pyro.sample("z", normal())
    pyro.factor("f", -(z**2))
    with pyro.plate("rows", 4), poutine.mask(mask=MASK):
        pyro.sample("y", normal(z), obs=Y)


def shared_scaled() -> None:
    """With the likelihood to the power of 2.5."""
    z = pyro.sample("z", normal())
    with pyro.plate("rows", 4), poutine.scale(scale=2.5):
        pyro.sample("y", normal(z), obs=Y)


def own() -> None:
    """A latent site for each datum."""
    with pyro.plate("rows", 4):
        z = pyro.sample("z", normal())
        pyro.sample("y", normal(z), obs=Y)


def own_masked() -> None:
    """With a row masked out, its latent site too."""
    with pyro.plate("rows", 4), poutine.mask(mask=MASK):
        z = pyro.sample("z", normal())
        pyro.sample("y", normal(z), obs=Y)


def own_masked_itself() -> None:
    """The same, by the distributions."""
    with pyro.plate("rows", 4):
        z = pyro.sample("z", normal().mask(MASK))
        pyro.sample("y", normal(z).mask(MASK), obs=Y)


def own_scaled() -> None:
    """All of it to the power of 2.5."""
    with poutine.scale(scale=2.5):
        own()


def own_by_rows() -> None:
    """The rows that the guide takes, if it takes some."""
    with pyro.plate("rows", 4) as rows:
        z = pyro.sample("z", normal())
        pyro.sample("y", normal(z), obs=Y.index_select(0, rows))


GRID = torch.linspace(-12.0, 12.0, 4_001, dtype=torch.float64)
PRIOR = normal().log_prob(GRID)
LIKELIHOODS = normal(GRID).log_prob(Y[:, None])  # datum by grid


def integral(log_density: Tensor) -> Tensor:
    """The logarithm of the integral over the grid."""
    return torch.logsumexp(log_density, -1) + math.log(24.0 / 4_000)


EACH = integral(PRIOR + LIKELIHOODS)
EVIDENCE = {
    shared: integral(PRIOR + LIKELIHOODS.sum(0)),
    shared_masked: integral(PRIOR - GRID**2 + LIKELIHOODS[MASK].sum(0)),
    shared_scaled: integral(PRIOR + 2.5 * LIKELIHOODS.sum(0)),
    own: EACH.sum(),
    own_masked: EACH[MASK].sum(),
    own_masked_itself: EACH[MASK].sum(),
    own_scaled: 2.5 * EACH.sum(),
    own_by_rows: EACH.sum(),
}


# ------------------------------------------------------------------------------------- their guides


def plain(loc: Tensor, scale: Tensor) -> None:
    """A normal."""
    pyro.sample("z", dist.Normal(loc, scale))


def observing(loc: Tensor, scale: Tensor) -> None:
    """It observes as well, what the model does and what it does not."""
    pyro.sample("z", dist.Normal(loc, scale))
    pyro.sample("y", normal(5.0), obs=f64(0.0))
    pyro.sample("w", normal(5.0), obs=f64(0.0), infer=AUXILIARY)
    pyro.deterministic("twice", 2 * loc)


def carried(loc: Tensor, scale: Tensor) -> None:
    """A draw of its own, carried on by a Delta that knows the Jacobian."""
    half = pyro.sample("half", dist.Normal(loc / 2, scale / 2), infer=AUXILIARY)
    pyro.sample("z", dist.Delta(2 * half, log_density=f64(-math.log(2.0))))


def corrected(loc: Tensor, scale: Tensor) -> None:
    """The same, with the Jacobian as a factor."""
    half = pyro.sample("half", dist.Normal(loc / 2, scale / 2), infer=AUXILIARY)
    pyro.sample("z", dist.Delta(2 * half))
    pyro.factor("jacobian", f64(-math.log(2.0)), has_rsample=True)


def mixed(loc: Tensor, scale: Tensor) -> None:
    """Draws of its own, one wide and one discrete, that nothing carries on."""
    wide = pyro.sample("wide", dist.Normal(loc, 3.0 * scale), infer=AUXILIARY)
    side = pyro.sample("side", dist.Bernoulli(WEIGHTS[0]), infer=AUXILIARY)
    pyro.sample("z", dist.Normal(0.3 * wide + side, scale))


def own_plain(loc: Tensor, scale: Tensor) -> None:
    """Normals, not masked and not scaled."""
    with pyro.plate("rows", 4):
        pyro.sample("z", dist.Normal(loc * Y, scale))


def own_by_dimension(loc: Tensor, scale: Tensor) -> None:
    """Without the plate."""
    pyro.sample("z", dist.Normal(loc * Y, scale))


def own_like(loc: Tensor, scale: Tensor) -> None:
    """Scaled as the model is."""
    with poutine.scale(scale=2.5):
        own_plain(loc, scale)


def own_jointly(loc: Tensor, scale: Tensor) -> None:
    """One draw of its own for all rows, carried on."""
    flat = pyro.sample("flat", dist.Normal(loc * Y, scale).to_event(1), infer=AUXILIARY)
    with pyro.plate("rows", 4):
        pyro.sample("z", dist.Delta(flat))


def some_rows(loc: Tensor, scale: Tensor) -> None:
    """Two rows of the four."""
    with pyro.plate("rows", 4, subsample_size=2) as rows:
        pyro.sample("z", dist.Normal(loc * Y.index_select(0, rows), scale))


PAIRS: list[tuple[Model, Guide]] = [
    *product([shared, shared_masked, shared_scaled], [plain, observing, carried, corrected, mixed]),
    *product([own, own_masked, own_masked_itself], [own_plain, own_by_dimension]),
    (own, own_jointly),
    (own_scaled, own_like),
    (own_by_rows, some_rows),
]
LOSSES: list[ELBO] = [
    Trace_ELBO(),
    Trace_ELBO(3),
    TraceMeanField_ELBO(),
    TraceGraph_ELBO(),
    TraceEnum_ELBO(max_plate_nesting=1),
    RenyiELBO(0.0, 3),
    RenyiELBO(0.5, 2),
]


def takes(loss: ELBO, guide: Guide) -> bool:
    """Whether a loss takes a guide; else it says so."""
    if isinstance(loss, TraceMeanField_ELBO):
        return guide is not mixed  # a discrete site
    return not isinstance(loss, TraceEnum_ELBO) or guide is not own_by_dimension


def names(values: object) -> str:
    """How a test is called."""
    return (
        "-".join(getattr(v, "__name__", str(v)) for v in values)
        if isinstance(values, tuple)
        else str(values)
    )


CASES = [(*pair, loss) for pair in PAIRS for loss in LOSSES if takes(loss, pair[1])]
EXACT = [
    (guide, loss)
    for guide in (own_plain, own_by_dimension, own_jointly)
    for loss in LOSSES
    if takes(loss, guide)
]


def losses_of(
    loss: ELBO,
    model: Callable[..., object],
    guide: Callable[..., object],
    params: dict[str, Tensor],
) -> Tensor:
    """The losses of many keys."""

    def one(key: Tensor) -> Tensor:
        return loss.loss(model, guide, params, random.Key(key))

    return torch.vmap(one)(random.split(random.key(3), KEYS))


def check_bound(losses: Tensor, evidence: Tensor) -> None:
    """The mean is not seen to be below minus the log evidence."""
    error = losses.std() / math.sqrt(len(losses))
    assert losses.dtype == torch.float64
    assert losses.mean() >= -evidence - 3 * error - 1e-9, (losses.mean(), -evidence, error)


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
@pytest.mark.parametrize("case", CASES, ids=names)
@settings(max_examples=4)
@given(loc=st.floats(-1.0, 1.5), scale=st.floats(0.3, 1.2))
def test_no_loss_is_below_the_evidence(
    case: tuple[Model, Guide, ELBO], loc: float, scale: float
) -> None:
    model, guide, loss = case
    losses = losses_of(loss, model, lambda: guide(f64(loc), f64(scale)), {})
    check_bound(losses, EVIDENCE[model])


# With these the exact posterior is a guide, so that the bound is met.
@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
@pytest.mark.parametrize("case", EXACT, ids=names)
def test_the_exact_posterior_meets_the_bound(case: tuple[Guide, ELBO]) -> None:
    guide, loss = case
    losses = losses_of(loss, own, lambda: guide(f64(0.5), f64(0.5).sqrt()), {})
    exact = not isinstance(loss, TraceMeanField_ELBO) or guide is own_jointly
    torch.testing.assert_close(losses.mean(), -EVIDENCE[own], atol=1e-6 if exact else 0.2, rtol=0)


# ----------------------------------------------------------------------------- automatic guides

# Models whose masks an automatic guide does not know are added here as it learns of them.
AUTOMATIC: list[Model] = [shared, shared_masked, shared_scaled, own, own_masked, own_scaled]


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("model", AUTOMATIC)
@pytest.mark.parametrize("make", [AutoNormal, AutoNormalMessenger])
def test_automatic_guides(make: Callable[[Model], Any], model: Model, loss: ELBO) -> None:
    guide = make(model)
    if make is AutoNormalMessenger:
        guide()  # it makes its parameters in its first call
    params = init(guide, random.key(0))
    losses = losses_of(loss, model, guide, params)
    check_bound(losses, EVIDENCE[model])


# ------------------------------------------------------------------ discrete sites, exact gradients


class Discrete(NamedTuple):
    """A model with two Bernoulli sites, a guide, and the loss at their values, by hand."""

    model: Callable[[], None]
    guide: Callable[[], None]
    # The log weight, log p - log q, by site values; and by row where rows are independent.
    log_weights: Callable[[Tensor, Tensor], Tensor]
    rows: bool = False


LOGITS = torch.tensor([0.4, -0.7], dtype=torch.float64)


def logits() -> Tensor:
    """The guide's parameter."""
    value: Tensor = pyro.param("logits", LOGITS)
    return value


def two_rows() -> None:
    """Independent rows."""
    with pyro.plate("rows", 2):
        k = pyro.sample("k", dist.Bernoulli(f64(0.4)))
        pyro.sample("y", normal(2 * k), obs=Y[:2])


def in_the_plate() -> None:
    """A guide with the plate."""
    with pyro.plate("rows", 2):
        pyro.sample("k", dist.Bernoulli(logits=logits()))


def joint() -> None:
    """A guide that knows of no plate."""
    pyro.sample("k", dist.Bernoulli(logits=logits()))


def with_a_factor() -> None:
    """A guide with a factor that depends on the draw and on the parameter."""
    k = pyro.sample("k", dist.Bernoulli(logits=logits()).to_event(1))
    pyro.factor("f", 0.3 * (k * logits()).sum() + 0.2 * k.prod(-1), has_rsample=False)


def with_its_own() -> None:
    """A guide with a draw of its own before."""
    u = pyro.sample("u", dist.Bernoulli(logits=logits()[0]), infer=AUXILIARY)
    pyro.sample("k", dist.Bernoulli(logits=logits() + u).to_event(1))


def sum_of_two() -> None:
    """Both values in each datum; no plate around the data's dimension."""
    k = pyro.sample("k", dist.Bernoulli(f64(0.4)).expand([2]))
    pyro.sample("y", normal(2 * k.sum(-1, keepdim=True) + torch.zeros(4)), obs=Y)


def sum_of_two_events() -> None:
    """The same with events."""
    k = pyro.sample("k", dist.Bernoulli(f64(0.4)).expand([2]).to_event(1))
    pyro.sample("y", normal(2 * k.sum(-1) + torch.zeros(4)).to_event(1), obs=Y)


def _prior(k: Tensor) -> Tensor:
    return dist.Bernoulli(f64(0.4)).log_prob(k)


def _q(k: Tensor, logits: Tensor) -> Tensor:
    return dist.Bernoulli(logits=logits).log_prob(k)


def _of_rows(k: Tensor, logits: Tensor) -> Tensor:
    return _prior(k) + normal(2 * k).log_prob(Y[:2]) - _q(k, logits)


def _of_sum(k: Tensor, logits: Tensor) -> Tensor:
    p = _prior(k).sum(-1) + normal(2 * k.sum(-1, keepdim=True)).log_prob(Y).sum(-1)
    return p - _q(k, logits).sum(-1)


def _of_factor(k: Tensor, logits: Tensor) -> Tensor:
    return _of_sum(k, logits) - 0.3 * (k * logits).sum(-1) - 0.2 * k.prod(-1)


DISCRETE = {
    "plate": Discrete(two_rows, in_the_plate, _of_rows, rows=True),
    "no plate in the guide": Discrete(two_rows, joint, lambda k, q: _of_rows(k, q).sum(-1)),
    "no plate at all": Discrete(sum_of_two, joint, _of_sum),
    "factor": Discrete(sum_of_two_events, with_a_factor, _of_factor),
}


def expected(case: Discrete, logits: Tensor, alpha: float, count: int) -> Tensor:
    """The expected loss of `RenyiELBO`, by the sum over all values of all particles.

    With one particle it is that of the others, whatever ``alpha`` is.
    """
    values = [torch.tensor(each, dtype=torch.float64) for each in product([0.0, 1.0], repeat=2)]
    total = torch.zeros((), dtype=torch.float64)
    for particles in product(values, repeat=count):
        k = torch.stack(particles)
        weights = case.log_weights(k, logits)
        mean = torch.logsumexp((1 - alpha) * weights, 0) - math.log(count)
        loss = -mean.sum() / (1 - alpha)
        total = total + _q(k, logits).sum().exp() * loss
    return total


def gradients_of(
    loss: ELBO, case: Discrete, count: int = 20_000
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mean gradient and its standard error, and those of the loss."""

    def one(key: Tensor) -> tuple[Tensor, Tensor]:
        def at(logits: Tensor) -> Tensor:
            return loss.loss(case.model, case.guide, {"logits": logits}, random.Key(key))

        found: tuple[Tensor, Tensor] = torch.func.grad_and_value(at)(LOGITS)
        return found

    gradients, losses = torch.vmap(one)(random.split(random.key(9), count))
    root = math.sqrt(count)
    return gradients.mean(0), gradients.std(0) / root, losses.mean(), losses.std() / root


SINGLE: list[ELBO] = [Trace_ELBO(), Trace_ELBO(2), TraceGraph_ELBO(), RenyiELBO(0.5, 1)]


def check_expected(loss: ELBO, case: Discrete, alpha: float, count: int) -> None:
    """Mean loss and gradient, from 20,000 keys, are 4 standard errors from the sum at most."""
    exact, value = torch.func.grad_and_value(lambda at: expected(case, at, alpha, count))(LOGITS)
    gradient, error, mean, error_of_mean = gradients_of(loss, case)
    assert (mean - value).abs() <= 4 * error_of_mean, (mean, value, error_of_mean)
    assert ((gradient - exact).abs() <= 4 * error).all(), (gradient, exact, error)
    assert (error < 0.1).all()  # so that there is something to see


@pytest.mark.parametrize("loss", SINGLE, ids=str)
@pytest.mark.parametrize("name", DISCRETE)
def test_gradients_at_discrete_sites(name: str, loss: ELBO) -> None:
    check_expected(loss, DISCRETE[name], 0.0, 1)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0, -1.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_gradients_of_renyis_bound(name: str, alpha: float, count: int) -> None:
    check_expected(RenyiELBO(alpha, count), DISCRETE[name], alpha, count)


@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceGraph_ELBO(), RenyiELBO(0.0, 1)], ids=str)
def test_gradients_with_a_draw_of_the_guides_own(loss: ELBO) -> None:
    """The bound is the mean of those given the draw; its score is there, its density is not."""

    def of(logits: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for u in (f64(0.0), f64(1.0)):
            for each in product([0.0, 1.0], repeat=2):
                k = torch.tensor(each, dtype=torch.float64)
                prob = (_q(u, logits[0]) + _q(k, logits + u).sum()).exp()
                total = total - prob * _of_sum(k, logits + u)
        return total

    exact, value = torch.func.grad_and_value(of)(LOGITS)
    case = Discrete(sum_of_two_events, with_its_own, _of_sum)
    gradient, error, mean, error_of_mean = gradients_of(loss, case)
    assert (mean - value).abs() <= 4 * error_of_mean
    assert ((gradient - exact).abs() <= 4 * error).all(), (gradient, exact, error)


def test_gradients_under_enumeration_are_exact() -> None:
    """In the guide, with a factor and a draw of its own; no noise."""
    enumerate_: Any = {"enumerate": "parallel"}

    def guide() -> None:
        with pyro.plate("rows", 2):
            k = pyro.sample("k", dist.Bernoulli(logits=logits()), infer=enumerate_)
            pyro.factor("f", 0.3 * k * logits(), has_rsample=False)

    def of(at: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for each in (0.0, 1.0):
            k = torch.full((2,), each, dtype=torch.float64)
            total = total - (_q(k, at).exp() * (_of_rows(k, at) - 0.3 * k * at)).sum()
        return total

    def loss(at: Tensor) -> Tensor:
        elbo = TraceEnum_ELBO(max_plate_nesting=1)
        return elbo.loss(two_rows, guide, {"logits": at}, random.key(0))

    found = torch.func.grad_and_value(loss)(LOGITS)
    torch.testing.assert_close(found, torch.func.grad_and_value(of)(LOGITS))


@pytest.mark.parametrize("observes", [False, True])
def test_sums_over_the_model_are_the_evidence(observes: bool) -> None:
    """Whatever the guide observes."""

    def guide() -> None:
        if observes:
            pyro.sample("k", dist.Bernoulli(f64(0.5)).expand([2]), obs=torch.zeros(2).double())

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.loss(config_enumerate(two_rows), guide, {}, random.key(0))
    k = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    evidence = torch.logsumexp(_of_rows(k, LOGITS) + _q(k, LOGITS), 0).sum()
    torch.testing.assert_close(loss, -evidence)
