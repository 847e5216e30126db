"""Losses that are not finite: named, skipped by member, or let through."""

from __future__ import annotations

from typing import Any

import attrs
import optree
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.distributions import is_validation_enabled
from torch import Tensor

from purepyro import random
from purepyro._errors import DeclarationError, MissingNameError, SupportError
from purepyro.infer import SVI, AutoNormal, Trace_ELBO
from purepyro.infer.svi._nonfinite import Batch, Taken, Watch

Y = torch.tensor([1.0, 2.0, 6.0])
BAD = torch.tensor([1.0, torch.nan, 6.0])


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def weighted(y: Tensor, weight: Tensor) -> None:
    """A factor whose value and gradient are as bad as ``weight``, unseen by Pyro's own checks."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.factor("penalty", weight * loc)


def rooted(y: Tensor) -> None:
    """A finite density with a gradient that is not, where the data sum to more than zero."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    zero = loc - loc.detach()
    pyro.factor("root", (zero * zero).sqrt() if y.sum() > 0 else zero)


def same(a: object, b: object) -> bool:
    trees: list[Any] = [a, b]
    leaves = [optree.tree_leaves(each) for each in trees]
    return all(map(torch.equal, *leaves))


@pytest.fixture
def svi() -> SVI[[Tensor]]:
    return SVI(model, AutoNormal(model), torchopt.adam(0.1))


# raise


def test_bad_data_at_init(key: random.Key, svi: SVI[[Tensor]]) -> None:
    match = r"SVI\.init: the value of the observed site 'y' of the model \(float32\[3\]\) is not"
    with pytest.raises(SupportError, match=match + r" finite \(1 of its 3 numbers\).*Mend"):
        svi.init(key, BAD)


def test_bad_data_at_init_of_the_other_kinds(key: random.Key, svi: SVI[[Tensor]]) -> None:
    """Skipping needs a good start; ignoring goes on, also for one member of several."""
    with pytest.raises(SupportError, match=r"SVI\.init: the value of the observed site 'y'"):
        attrs.evolve(svi, on_nonfinite="skip").init(key, BAD)
    ignoring = attrs.evolve(svi, on_nonfinite="ignore")
    assert same(ignoring.init(key, BAD), svi.init(key, Y))

    def losses(key: Tensor, y: Tensor) -> Tensor:
        return ignoring.run(random.Key(key), 2, y).losses

    found = torch.vmap(losses)(random.split(key, 2), torch.stack([Y, BAD]))
    assert found.isfinite().tolist() == [[True, True], [False, False]]


def test_a_density_that_is_no_number_at_init(key: random.Key) -> None:
    svi = SVI(weighted, AutoNormal(weighted), torchopt.adam(0.1))
    with pytest.raises(
        SupportError, match=r"SVI\.init: the log density of the factor site 'penalty' of.* \(nan\)"
    ):
        svi.init(key, Y, torch.tensor(torch.nan))


def test_bad_data_later(key: random.Key, svi: SVI[[Tensor]]) -> None:
    state = svi.run(key, 3, Y).state
    with pytest.raises(SupportError, match=r"Step 3 has no finite loss: the value of the obs.*'y'"):
        svi.run_from(state, 2, BAD)


def test_a_density_that_is_infinite(key: random.Key) -> None:
    svi = SVI(weighted, AutoNormal(weighted), torchopt.adam(0.1))
    state = svi.init(key, Y, torch.tensor(1.0))
    with pytest.raises(SupportError, match=r"Step 0 .*'penalty' of the model.*on_nonfinite='skip'"):
        svi.run_from(state, 2, Y, torch.tensor(torch.inf))


def test_a_gradient_that_is_not_finite(key: random.Key) -> None:
    svi = SVI(rooted, AutoNormal(rooted), torchopt.adam(0.1))
    state = svi.run(key, 2, -Y).state
    for steps in (1, 5):
        with pytest.raises(
            SupportError,
            match=r"Step 2 made the parameters \['locs.loc', 'scales.loc'\] not finite: the log "
            r"density of the site 'root' of the model has a gradient with respect to \['locs",
        ):
            svi.run_from(state, steps, Y)


def test_a_step_that_is_too_long(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.sgd(1e38))
    with pytest.raises(SupportError, match=r"(not finite|no finite loss)"):
        svi.run(key, 20, 1e3 * Y)


def test_parameters_that_are_bad_from_the_start(key: random.Key, svi: SVI[[Tensor]]) -> None:
    state = svi.init(key, Y)
    bad = state._replace(params={**state.params, "locs.loc": torch.tensor(torch.nan)})
    with pytest.raises(SupportError, match=r"\['locs.loc'\] are not finite before step 0"):
        svi.run_from(bad, 1, Y)


def test_the_particle_that_goes_bad(key: random.Key) -> None:
    def one_sided(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.factor("wall", torch.where(loc * y.sum() > -0.1, loc, -torch.inf))

    loss = Trace_ELBO(num_particles=20)
    svi = SVI(one_sided, AutoNormal(one_sided), torchopt.adam(0.1), loss)
    with pytest.raises(
        SupportError, match=r"the log density of the factor site 'wall' of.* \(-inf\)"
    ):
        svi.run(key, 50, Y)


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_other_errors_of_a_model_are_its_own(key: random.Key) -> None:
    def moody(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if len(y) > 3:
            raise ValueError("on purpose")

    svi = SVI(moody, AutoNormal(moody), torchopt.adam(0.1))
    with pytest.raises(ValueError, match=r"^on purpose$"):
        svi.run_from(svi.init(key, Y), 2, torch.zeros(4))


def test_a_loss_that_is_bad_by_itself(key: random.Key) -> None:
    class Loss:
        def loss(self, *args: object, **kwargs: object) -> Tensor:
            return torch.tensor(torch.inf)

    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), Loss())
    with pytest.raises(SupportError, match=r"a step is inf, though all sites are finite"):
        svi.run(key, 1, Y)


@pytest.mark.parametrize("bad", [0, 1, 4, 6])
@pytest.mark.parametrize("every", [1, 3, 5])
def test_losses_read_a_few_at_a_time(bad: int, every: int) -> None:
    """The step that went bad is found by taking those since the last look again."""
    explained: list[tuple[int, int | None, int]] = []

    def step(state: int, value: float) -> tuple[int, Tensor]:
        return state + 1, torch.tensor(value)

    def explain(now: Taken[int], previous: Taken[int] | None) -> str:
        explained.append((now.before, previous.before if previous else None, len(now.batch.kwargs)))
        return "explained"

    def take_seven() -> None:
        watch, state, before = Watch(step, explain, every), 0, 0
        for number in range(7):
            before = state
            state, _ = watch.step(state, Batch((torch.inf if number == bad else 1.0,), {}))
        watch.look(before)

    with pytest.raises(SupportError, match="explained"):
        take_seven()
    assert explained == [(bad, bad - 1 if bad else None, 0)]


# skip


def test_a_skipped_step_changes_only_the_counter(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite="skip")
    state = svi.run(key, 3, Y).state
    after, loss = svi.step(state, BAD)
    assert loss.isnan()
    assert same(after._replace(step=state.step), state)
    assert after.step == 4
    assert is_validation_enabled()


def test_a_step_with_a_bad_gradient_is_skipped(key: random.Key) -> None:
    svi = SVI(rooted, AutoNormal(rooted), torchopt.adam(0.1), on_nonfinite="skip")
    state = svi.init(key, -Y)
    after, loss = svi.step(state, Y)
    assert loss.isfinite()
    assert same(after.params, state.params)
    assert same(after.opt_state, state.opt_state)


def test_skipping_changes_no_good_step(key: random.Key, svi: SVI[[Tensor]]) -> None:
    skip = SVI(model, svi.guide, svi.optim, on_nonfinite="skip")
    assert same(skip.run(key, 5, Y), svi.run(key, 5, Y))


def test_a_run_goes_on_after_a_skipped_step(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite="skip")
    state, losses = svi.fit(key, [Y, BAD, Y, Y], data_size=None)
    assert losses.isfinite().tolist() == [True, False, True, True]
    assert all(bool(value.isfinite()) for value in state.params.values())


def test_skipping_by_member(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite="skip", frozen="scales.*")
    states = torch.vmap(lambda k: svi.init(random.Key(k), Y))(random.split(key, 3))
    data = torch.stack([Y, BAD, Y])
    after, losses = torch.vmap(svi.step)(states, data)
    assert losses.isfinite().tolist() == [True, False, True]
    moved = after.params["locs.loc"] != states.params["locs.loc"]
    assert moved.tolist() == [True, False, True]
    counts = after.opt_state[0].count[0]
    assert counts.tolist() == [1, 0, 1]
    alone, _ = svi.step(svi.init(random.Key(random.split(key, 3)[0]), Y), Y)
    torch.testing.assert_close(after.params["locs.loc"][0], alone.params["locs.loc"])


def test_skipping_still_refuses_what_is_no_number_problem(key: random.Key) -> None:
    svi = SVI(model, lambda y: None, torchopt.adam(0.1), on_nonfinite="skip")
    with pytest.raises(MissingNameError, match=r"no site for the model's latent"):
        svi.init(key, Y)


# ignore


def test_ignoring_goes_on(key: random.Key) -> None:
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite="ignore")
    state, losses = svi.fit(key, [Y, BAD, Y], data_size=None)
    assert losses.isfinite().tolist() == [True, False, False]
    assert not state.params["locs.loc"].isfinite()
    assert not svi.evaluate(state, Y).isfinite()


def test_a_run_under_vmap_reads_no_loss(key: random.Key, svi: SVI[[Tensor]]) -> None:
    def run(key: Tensor) -> Tensor:
        return svi.run(random.Key(key), 3, Y).losses

    keys = random.split(key, 2)
    torch.testing.assert_close(torch.vmap(run)(keys), torch.stack([run(k) for k in keys]))


def test_an_unknown_way_out() -> None:
    wrong: Any = "skipp"
    with pytest.raises(DeclarationError, match=r"on_nonfinite is 'skipp'.*Did you mean 'skip'"):
        SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite=wrong)


@pytest.mark.filterwarnings("ignore:The model observed nothing")
def test_validation_is_back_after_an_exception(key: random.Key) -> None:
    def moody(y: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if len(y) > 3:
            raise ArithmeticError("on purpose")

    svi = SVI(moody, AutoNormal(moody), torchopt.adam(0.1), on_nonfinite="skip")
    state = svi.init(key, Y)

    with pytest.raises(ArithmeticError):
        svi.step(state, torch.zeros(4))
    assert is_validation_enabled()
