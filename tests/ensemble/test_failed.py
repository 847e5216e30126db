"""A member that goes bad is set apart alone, and reported."""

from __future__ import annotations

from typing import Literal

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor

from purepyro import Ensemble, PyroParam, random
from purepyro._errors import SupportError
from purepyro.infer import SVI, AutoNormal, scale


def model(y: Tensor, scale: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)


Y = torch.tensor([1.0, 2.0, 3.0])
KEYS = random.split(random.key(0), 3)
ALONE = SVI(model, AutoNormal(model), torchopt.adam(0.1))
ENSEMBLE = Ensemble(ALONE, in_dims=(None, 0), progress_bar=False)
ONE_BAD = torch.tensor([1.0, torch.nan, 1.0])


@pytest.mark.parametrize("how", ["vmap", "loop"])
@pytest.mark.parametrize("chunk_size", [2, None])
def test_one_bad_member_leaves_the_others_alone(
    how: Literal["vmap", "loop"], chunk_size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    ensemble = attrs.evolve(ENSEMBLE, map=how, chunk_size=chunk_size)
    start = ensemble.init(KEYS, Y, torch.ones(3))
    before = ensemble.run_from(start, 2, Y, torch.ones(3)).state
    result = ensemble.run_from(before, 4, Y, ONE_BAD)
    assert result.quarantined == {1: 2}
    assert result.state.alive.tolist() == [True, False, True]
    assert torch.equal(result.losses.isnan(), torch.tensor([[False, True, False]]).expand(4, 3))
    assert result.state.svi.step.tolist() == [6, 2, 6]
    for name, value in before.svi.params.items():
        assert torch.equal(result.state.svi.params[name][1], value[1])
    for i in (0, 2):
        alone = ALONE.run(KEYS[i], 6, Y, torch.tensor(1.0)).state
        for name, value in alone.params.items():
            torch.testing.assert_close(result.state.svi.params[name][i], value)
    (record,) = caplog.records
    assert record.name == "purepyro.ensemble"
    assert record.levelname == "WARNING"
    assert "1 of 3 members went into quarantine" in record.getMessage()
    assert "1 at step 2. Member 1: Step 2 has no finite loss" in record.getMessage()
    assert "'y' of the model" in record.getMessage()
    # It stays there, is not reported again, and the state that it has can be looked at.
    caplog.clear()
    again = ensemble.run_from(result.state, 1, Y, torch.ones(3))
    assert again.quarantined == {1: 2}
    assert not caplog.records
    with pytest.raises(SupportError, match="site 'y' of the model"):
        ALONE.run_from(ensemble.member(result.state, 1), 1, Y, ONE_BAD[1])


def test_a_gradient_that_is_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    """The loss is finite at zero, its slope is not."""

    def root(c: Tensor) -> None:
        w = pyro.param("w", torch.tensor(0.0))
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", -(w.abs() + c).sqrt())

    def guide(c: Tensor) -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))

    svi = SVI(root, guide, torchopt.adam(0.1))
    ensemble = Ensemble(svi, in_dims=0, progress_bar=False)
    result = ensemble.run(KEYS[:2], 3, torch.tensor([0.0, 1.0]))
    assert result.quarantined == {0: 0}
    assert result.losses[0].isfinite().all()
    assert result.losses[1:, 0].isnan().all()
    assert "'f' of the model has a gradient" in caplog.text
    assert result.state.svi.params["w"][0] == 0.0


def test_all_members_bad() -> None:
    start = ENSEMBLE.init(KEYS, Y, torch.ones(3))
    with pytest.raises(
        SupportError, match=r"All 3 members are in quarantine.*member 0\. Step 0.*site 'y'"
    ):
        ENSEMBLE.run_from(start, 3, Y, torch.full((3,), torch.nan))
    dead = start._replace(quarantined_at=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(SupportError, match="All 3 members"):
        ENSEMBLE.run_from(dead, 1, Y, ONE_BAD)


@pytest.mark.parametrize("how", ["vmap", "loop"])
def test_a_bad_start_is_noticed_if_it_is_that_of_all(how: Literal["vmap", "loop"]) -> None:
    ensemble = attrs.evolve(ENSEMBLE, map=how)
    with pytest.raises(SupportError, match=r"SVI\.init: .*'y'"):
        ensemble.init(KEYS, Y, torch.full((3,), torch.nan))
    with pytest.raises(SupportError, match=r"SVI\.init: .*'y'"):
        ensemble.init(KEYS, Y * torch.nan, torch.ones(3))
    assert ensemble.run(KEYS, 1, Y, torch.tensor([torch.nan, 1.0, 1.0])).quarantined == {0: 0}


def test_members_with_settings_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    def make_svi(rate: Tensor) -> SVI[[Tensor, Tensor]]:
        return attrs.evolve(ALONE, optim=torchopt.chain(torchopt.sgd(1.0), scale(rate)))

    rates = torch.tensor([0.01, 1e30])
    ensemble = Ensemble(make_svi, members=rates, progress_bar=False)
    result = ensemble.run(KEYS[:2], 5, Y, torch.tensor(1.0))
    assert list(result.quarantined) == [1]
    assert "Member 1" in caplog.text


def test_a_skipped_step_is_no_quarantine(caplog: pytest.LogCaptureFixture) -> None:
    ensemble = attrs.evolve(ENSEMBLE, svi=attrs.evolve(ALONE, on_nonfinite="skip"))
    start = ensemble.init(KEYS, Y, torch.ones(3))
    bad = ensemble.run_from(start, 2, Y, ONE_BAD)
    assert bad.quarantined == {}
    good = ensemble.run_from(bad.state, 2, Y, torch.ones(3))
    assert good.losses.isfinite().all()
    assert good.state.svi.step.tolist() == [4, 4, 4]
    ignored = attrs.evolve(ENSEMBLE, svi=attrs.evolve(ALONE, on_nonfinite="ignore"))
    assert not ignored.run_from(start, 3, Y, ONE_BAD).state.svi.params["locs.loc"][1].isfinite()
    assert not caplog.records


def test_members_that_are_all_one_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    def model(y: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("y", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=y)

    def guide(y: Tensor) -> None: ...

    def varied(y: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.randn(()))
        pyro.sample("y", dist.Normal(loc, 1.0).expand([3]).to_event(1), obs=y)

    Ensemble(SVI(varied, guide, torchopt.adam(0.1)), progress_bar=False).run(KEYS, 2, Y)
    assert not caplog.records
    ensemble = Ensemble(SVI(model, guide, torchopt.adam(0.1)), progress_bar=False)
    ensemble.run(KEYS[:1], 2, Y)
    ensemble.run(KEYS[torch.tensor([0, 0])], 2, Y)  # as was asked for
    assert not caplog.records
    ensemble.run(KEYS, 2, Y)
    assert "All 3 members are equal" in caplog.text
    assert PyroParam.__name__ in caplog.text
