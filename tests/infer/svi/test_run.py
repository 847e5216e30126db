"""Runs: going on, stopping early, telling how far they are, and what they refuse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.distributions import is_validation_enabled
from torch import Tensor

from purepyro import random
from purepyro._errors import ShapeError
from purepyro.infer import SVI, AutoNormal, SVIRecord, SVIRunResult, SVIState
from purepyro.infer.svi._nonfinite import OnNonfinite

Y = torch.tensor([1.0, 2.0, 6.0])


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def svi_with(
    callback: Callable[[SVIRecord], object] | None = None, progress_bar: bool | None = None
) -> SVI[[Tensor]]:
    return SVI(
        model,
        AutoNormal(model),
        torchopt.adam(0.1),
        callback=callback,
        progress_bar=progress_bar,
    )


def test_going_on_from_a_state(key: random.Key) -> None:
    svi = svi_with()
    whole = svi.run(key, 10, Y)
    half = svi.run(key, 4, Y)
    rest = svi.run_from(half.state, 6, Y)
    torch.testing.assert_close(rest.state, whole.state, rtol=0, atol=0)
    both = torch.cat([half.losses, rest.losses])
    torch.testing.assert_close(both, whole.losses, rtol=0, atol=0)


def test_a_callback_sees_every_step_and_changes_nothing(key: random.Key) -> None:
    records: list[SVIRecord] = []
    result = svi_with(records.append).run(key, 5, Y)
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert torch.equal(torch.stack([record.loss for record in records]), result.losses)
    assert records[-1].state is result.state
    torch.testing.assert_close(result, svi_with().run(key, 5, Y), rtol=0, atol=0)


def test_a_callback_stops_a_run(key: random.Key) -> None:
    result = svi_with(lambda record: record.step == 3).run(key, 10, Y)
    assert result.losses.shape == (3,)
    assert result.state.step == 3
    stopped = svi_with(lambda record: record.loss > 0).run(key, 10, Y)  # a tensor will do
    assert stopped.losses.shape == (1,)


def test_stopping_when_the_loss_no_longer_falls(key: random.Key) -> None:
    """What docs/fit.md shows: the mean of 50 losses against that of the 50 before."""
    losses: list[float] = []

    def settled(record: SVIRecord) -> bool:
        losses.append(record.loss.item())
        if record.step % 50 or record.step < 100:
            return False
        return sum(losses[-50:]) > sum(losses[-100:-50]) - 0.5

    result = svi_with(settled).run(key, 2_000, Y)
    assert 100 <= len(result.losses) < 1_000


def test_iterating_and_breaking(key: random.Key) -> None:
    svi = svi_with()
    state = svi.init(key, Y)
    for record in svi.iterate(state, Y):
        state = record.state
        if record.step == 4:
            break
    torch.testing.assert_close(state, svi.run(key, 4, Y).state, rtol=0, atol=0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ArithmeticError])
def test_a_run_that_is_interrupted_leaves_a_usable_state(
    key: random.Key, error: type[BaseException]
) -> None:
    kept: list[SVIRecord] = []

    def keep(record: SVIRecord) -> None:
        kept.append(record)
        if record.step == 3:
            raise error

    with pytest.raises(error):
        svi_with(keep).run(key, 10, Y)
    resumed = svi_with().run_from(kept[-1].state, 7, Y)
    torch.testing.assert_close(resumed.state, svi_with().run(key, 10, Y).state, rtol=0, atol=0)


def test_log_lines_where_no_terminal_looks_on(
    key: random.Key, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "purepyro.infer"):
        svi_with().run(key, 20, Y)
    assert len(caplog.records) == 10
    assert caplog.messages[-1].startswith("SVI: 20 of 20 steps, loss ")
    assert capfd.readouterr().err == ""


def test_a_bar_and_no_log_lines(
    key: random.Key, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "purepyro.infer"):
        svi_with(progress_bar=True).run(key, 100, Y)
    assert not caplog.records
    shown = capfd.readouterr().err
    assert "100/100" in shown
    assert "loss=" in shown


def test_the_types_of_a_run(key: random.Key) -> None:
    svi = svi_with()
    assert_type(svi, SVI[[Tensor]])
    result = assert_type(svi.run_from(svi.init(key, Y), 1, Y), SVIRunResult)
    assert_type(result.state, SVIState)
    for record in svi.iterate(result.state, Y):
        assert_type(record, SVIRecord)
        break


def test_settings_are_values() -> None:
    guide, optim = AutoNormal(model), torchopt.adam(0.1)
    svi = SVI(model, guide, {"*": optim}, frozen="scales.*")
    assert svi == SVI(model, guide, {"*": optim}, frozen=("scales.*",))
    assert hash(svi) == hash(SVI(model, guide, {"*": optim}, frozen=["scales.*"]))
    assert attrs.evolve(svi, on_nonfinite="skip").optim == svi.optim


def test_runs_in_threads(key: random.Key) -> None:
    """Runs that switch Pyro's checks off, and others, side by side."""
    kinds: list[OnNonfinite] = ["raise", "skip", "ignore", "skip"]
    svis = [SVI(model, AutoNormal(model), torchopt.adam(0.1), on_nonfinite=kind) for kind in kinds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda svi: svi.run(key, 20, Y), svis))
    for svi, result in zip(svis, together, strict=True):
        torch.testing.assert_close(result, svi.run(key, 20, Y), rtol=0, atol=0)
    assert is_validation_enabled()


@pytest.mark.parametrize("count", [-1, 2.0, True, "3"])
def test_a_number_of_steps_that_is_none(key: random.Key, count: Any) -> None:  # noqa: ANN401
    svi = svi_with()
    with pytest.raises(ShapeError, match=r"num_steps is .*num_steps >= 0"):
        svi.run(key, count, Y)
    with pytest.raises(ShapeError, match=r"num_steps is .*num_steps >= 0"):
        svi.run_from(svi.init(key, Y), count, Y)
