"""What counts of a guide: observed sites, factors, its own draws, masks, rows; and what is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoNormalMessenger
from torch import Tensor

from purepyro import init, random
from purepyro._errors import DeclarationError, MissingNameError, ShapeError, UnknownNameError
from purepyro.infer import (
    ELBO,
    SVI,
    AutoNormal,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

Y = torch.tensor([0.3, 1.2, -0.5, 2.0, 0.1, 1.0])
AUXILIARY: Any = {"is_auxiliary": True}
MARKED: Any = {"enumerate": "parallel"}
LOSSES: list[ELBO] = [
    Trace_ELBO(),
    TraceMeanField_ELBO(),
    TraceGraph_ELBO(),
    TraceEnum_ELBO(max_plate_nesting=1),
    RenyiELBO(0.0, 1),
]
quiet = pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no s")


def normal(y: Tensor) -> None:
    """A normal with a normal prior."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z, 1.0), obs=y)


# --------------------------------------------------------------------------------- observed sites


@quiet
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_guide_that_runs_the_model_observes_nothing(
    key: random.Key, loss: ELBO, dtype: torch.dtype
) -> None:
    """At y = 2 the mean loss of Pyro's messenger is 4.73, as under Pyro, and -log p(y) is 2.27."""
    y = torch.tensor(2.0, dtype=dtype)
    guide = AutoNormalMessenger(normal)
    guide(y)
    params = init(guide, key, y)

    def one(key: Tensor) -> Tensor:
        return loss.loss(normal, guide, params, random.Key(key), y)

    # 4.730 is exact; the standard deviation of a loss is about 0.2.
    losses = torch.vmap(one)(random.split(key, 4_000))
    torch.testing.assert_close(losses.mean().item(), 4.730, atol=0.02, rtol=0)


@quiet
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_model_with_a_factor_as_its_own_guide(key: random.Key, loss: ELBO) -> None:
    """The factor is the model's, though the guide meets it."""

    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -((z - y) ** 2))

    y = torch.tensor(2.0)
    guide = AutoNormalMessenger(model)
    guide(y)
    params = init(guide, key, y)

    def one(key: Tensor) -> Tensor:
        return loss.loss(model, guide, params, random.Key(key), y)

    losses = torch.vmap(one)(random.split(key, 2_000))
    # E[(z - 2)^2] = 4 + 0.01, and the divergence of Normal(0, 0.1) from the prior.
    exact = 4.01 + (0.01 - 1) / 2 - torch.tensor(0.1).log().item()
    torch.testing.assert_close(losses.mean().item(), exact, atol=0.04, rtol=0)


def test_a_guide_that_observes_a_latent_site(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0), obs=y)

    for loss in LOSSES:
        with pytest.raises(MissingNameError, match=r"guide has no site for .* latent \['z'\]"):
            loss.loss(normal, guide, {}, key, torch.tensor(2.0))


def test_a_latent_site_marked_auxiliary(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0), infer=AUXILIARY)

    for loss in LOSSES:
        with pytest.raises(MissingNameError, match=r"own \['z'\] are marked is_auxiliary: leave"):
            loss.loss(normal, guide, {}, key, torch.tensor(2.0))


def test_an_observed_delta_is_refused(key: random.Key) -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        v = torch.tensor(0.0)
        pyro.sample("jac", dist.Delta(v, log_density=v + 1), obs=v, infer=AUXILIARY)

    with pytest.raises(DeclarationError, match=r"'jac' is an observed Delta.*pyro\.factor\('jac'"):
        Trace_ELBO().loss(normal, guide, {}, key, torch.tensor(2.0))


# ----------------------------------------------------------------------------------------- factors


def squared(flag: bool | None) -> Callable[[], None]:
    """A guide with a factor of its draw."""

    def guide() -> None:
        at = pyro.param("at", torch.tensor(0.7))
        z = pyro.sample("z", dist.Normal(at, 1.0))
        pyro.factor("f", z**2, has_rsample=flag)

    return guide


def prior() -> None:
    """The model to it."""
    pyro.sample("z", dist.Normal(0.0, 1.0))


@quiet
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("flag", [True, False])
def test_the_gradient_of_a_factor(key: random.Key, loss: ELBO, flag: bool) -> None:
    """The mean loss is E[z^2] + m^2 / 2 + ..., whose slope at m = 0.7 is 2.1."""

    def one(key: Tensor) -> Tensor:
        def at(m: Tensor) -> Tensor:
            return loss.loss(prior, squared(flag), {"at": m}, random.Key(key))

        slope: Tensor = torch.func.grad(at)(torch.tensor(0.7))
        return slope

    gradients = torch.vmap(one)(random.split(key, 4_000))
    # The standard deviation of one is 3 at most.
    torch.testing.assert_close(gradients.mean().item(), 2.1, atol=0.15, rtol=0)


@quiet
def test_a_factor_must_say_of_which_draws_it_is(key: random.Key) -> None:
    for loss in LOSSES:
        with pytest.raises(
            DeclarationError, match=r"pyro\.factor\('f', \.\.\.\) does not say has_rsample.*block"
        ):
            loss.loss(prior, squared(None), {"at": torch.tensor(0.7)}, key)
        hidden = poutine.block(squared(None), hide=["f"])  # as it advises
        loss.loss(prior, hidden, {"at": torch.tensor(0.7)}, key)


def test_the_log_density_of_a_delta_counts_in_a_mean_field(key: random.Key) -> None:
    """Pyro's divergence leaves it out: 3.328 for 2.628."""

    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Delta(torch.tensor(1.2), log_density=torch.tensor(-0.7)))

    def event_guide(y: Tensor) -> None:
        v = torch.tensor([1.2, 0.3])
        pyro.sample("z", dist.Delta(v, log_density=torch.tensor([-0.7, 0.1])).to_event(1))

    def event_model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(z.sum(), 1.0), obs=y)

    y = torch.tensor(2.0)
    for model, fits in ((normal, guide), (event_model, event_guide)):
        found = TraceMeanField_ELBO().loss(model, fits, {}, key, y)
        torch.testing.assert_close(found, Trace_ELBO().loss(model, fits, {}, key, y))


# ------------------------------------------------------------------------------- masks and scales


@pytest.mark.parametrize("scales", [(1.0, 2.5), (2.5, 1.0), (2.5, 2.5)])
def test_a_mean_field_has_each_sites_own_scale(
    key: random.Key, scales: tuple[float, float]
) -> None:
    """On average it is what Trace_ELBO is; Pyro's takes the guide's for both."""

    def model(y: Tensor) -> None:
        with poutine.scale(scale=scales[0]), poutine.mask(mask=y > 0):
            pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))

    def guide(y: Tensor) -> None:
        with poutine.scale(scale=scales[1]):
            pyro.sample("z", dist.Normal(0.5 * y, 0.7))

    def of(loss: ELBO) -> Tensor:
        return loss.loss(model, guide, {}, key, Y)

    found, other = of(TraceMeanField_ELBO(4_000)), of(Trace_ELBO(4_000))
    torch.testing.assert_close(found, other, atol=0.2, rtol=0)  # 3 standard errors


# -------------------------------------------------------------------------------------------- rows


def all_rows(y: Tensor) -> None:
    """A plate that takes all rows, or those that its guide drew."""
    with pyro.plate("rows", len(y)) as rows:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y[rows])


def some_rows(y: Tensor) -> None:
    """Two of them."""
    at = pyro.param("at", 0.5 * Y)
    scale = pyro.param("scale", torch.tensor(0.8), constraint=constraints.positive)
    with pyro.plate("rows", len(y), subsample_size=2) as rows:
        pyro.sample("z", dist.Normal(at[rows], scale))


@quiet
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_model_takes_the_guides_rows(key: random.Key, loss: ELBO) -> None:
    """The mean over subsamples is the loss of all rows."""

    def every(y: Tensor) -> None:
        at = pyro.param("at", 0.5 * Y)
        scale = pyro.param("scale", torch.tensor(0.8), constraint=constraints.positive)
        with pyro.plate("rows", len(y)):
            pyro.sample("z", dist.Normal(at, scale))

    params = init(some_rows, key, Y)

    def of(guide: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
        return lambda key: loss.loss(all_rows, guide, params, random.Key(key), Y)

    keys = random.split(key, 4_000)
    some, all_ = torch.vmap(of(some_rows))(keys), torch.vmap(of(every))(keys)
    error = (some.var() + all_.var()).sqrt().item() / 4_000**0.5
    torch.testing.assert_close(some.mean(), all_.mean(), atol=3 * error, rtol=0)


def test_the_model_may_take_as_many_rows(key: random.Key) -> None:
    def two_rows(y: Tensor) -> None:
        with pyro.plate("rows", len(y), subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[rows])

    def three_rows(y: Tensor) -> None:
        with pyro.plate("rows", len(y), subsample_size=3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    params = init(some_rows, key, Y)
    found = Trace_ELBO().loss(two_rows, some_rows, params, key, Y)
    torch.testing.assert_close(found, Trace_ELBO().loss(all_rows, some_rows, params, key, Y))
    with pytest.raises(ShapeError, match=r"rows of the plate 'rows' are int64\[2\].*subsample_si"):
        Trace_ELBO().loss(three_rows, some_rows, params, key, Y)


def test_rows_that_the_model_does_not_know(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("others", 2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    for loss in LOSSES:
        with pytest.raises(UnknownNameError, match=r"'z' in the subsampled plate 'rows'.*same na"):
            loss.loss(model, some_rows, init(some_rows, key, Y), key, Y)


def test_renyis_bound_takes_the_same_rows_in_all_particles(key: random.Key) -> None:
    """With the exact posterior every particle has the same weight, so two are no more than one."""
    params = {"at": Y / 2, "scale": torch.tensor(0.5).sqrt().log()}
    one = RenyiELBO(0.0, 1).loss(all_rows, some_rows, params, key, Y)
    two = RenyiELBO(0.0, 2).loss(all_rows, some_rows, params, key, Y)
    torch.testing.assert_close(one, two)


def test_renyis_bound_of_rows_that_share_a_site(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=2) as rows:
            pyro.sample("y", dist.Normal(z, 1.0), obs=y[rows])

    def guide(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(DeclarationError, match=r"'y' lies in the subsampled plate 'rows'.*no bou"):
        RenyiELBO(0.0, 2).loss(model, guide, {}, key, Y)
    found = RenyiELBO(0.0, 1).loss(model, guide, {}, key, Y)
    torch.testing.assert_close(found, Trace_ELBO().loss(model, guide, {}, key, Y))


# ------------------------------------------------------------------------------------ what is said


def test_marks_that_a_loss_ignores(key: random.Key) -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5), infer=MARKED)
        pyro.sample("y", dist.Normal(k, 1.0), obs=torch.tensor(1.0))

    def guide() -> None:
        pyro.sample("k", dist.Bernoulli(0.5), infer=MARKED)

    for loss in (Trace_ELBO(), TraceGraph_ELBO(), RenyiELBO()):
        with pytest.warns(UserWarning, match=r"sites \['k'\] are marked .* Use TraceEnum_ELBO"):
            loss.loss(model, guide, {}, key)
    with pytest.raises(MissingNameError, match=r"\['k'\] are marked for .*: TraceEnum_ELBO sums"):
        Trace_ELBO().loss(model, lambda: None, {}, key)


def test_a_fit_without_data(key: random.Key) -> None:
    def model(y: Tensor | None = None) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def weighted() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -(z**2))

    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    with pytest.warns(UserWarning, match=r"observed nothing .* latent \['y', 'z'\].*Pass the data"):
        svi.init(key)
    svi.init(key, torch.tensor(1.0))  # no warning, which would be an error
    SVI(weighted, AutoNormal(weighted), torchopt.adam(0.1)).init(key)
