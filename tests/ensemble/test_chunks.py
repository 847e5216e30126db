"""Chunks bound what is held at once, and are all alike."""

from __future__ import annotations

from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor

from models import regression, regression_data
from purepyro import Ensemble, disable_jit, random
from purepyro.ensemble import EnsembleState, _chunks
from purepyro.ensemble._loop import Training, train
from purepyro.infer import SVI, AutoDelta, AutoNormal

NET = regression()
FIT = SVI(NET, AutoNormal(NET), torchopt.adam(0.05))


def test_chunks_are_of_one_size_and_all_steps_of_one_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[list[int], int]] = []

    def watched(
        how: Training, state: EnsembleState, num_steps: int, *args: Any, **kwargs: Any
    ) -> tuple[EnsembleState, Tensor]:
        calls.append((state.svi.key[:, 1].tolist(), num_steps))
        return train(how, state, num_steps, *args, **kwargs)

    monkeypatch.setattr(_chunks, "train", watched)
    keys = random.split(random.key(0), 5)
    keys[:, 1] = torch.arange(5)
    result = Ensemble(FIT, chunk_size=2).run(keys, 3, *regression_data())
    assert calls == [([0, 1], 3), ([2, 3], 3), ([4, 4], 3)]  # the last is padded
    assert result.state.svi.key[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert result.losses.shape == (3, 5)


@pytest.mark.parametrize("map", ["vmap", "loop"])
def test_one_bar_counts_the_steps_of_all(
    map: Literal["vmap", "loop"], capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = Ensemble(FIT, chunk_size=1, progress_bar=True, map=map)
    ensemble.run(random.split(random.key(0), 2), 3, *regression_data())
    bars = capsys.readouterr().err
    assert bars.count("6/6") == 1
    assert "3/3" not in bars


@pytest.mark.compiled
def test_a_compiled_run_takes_as_many_members_as_the_cache_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = torch.ones(1_000, 64), torch.ones(1_000)  # of each member 256,000 bytes on the way

    def model(x: Tensor, y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal((x * loc).sin().sum(1), 1.0), obs=y)

    sizes: list[int] = []

    def watched(
        how: Training, state: EnsembleState, *args: Any, **kwargs: Any
    ) -> tuple[EnsembleState, Tensor]:
        sizes.append(len(state.svi.key))
        return train(how._replace(loop=None), state, *args, **kwargs)

    monkeypatch.setattr(_chunks, "train", watched)

    def sizes_of(members: int, rows: int, **settings: Any) -> list[int]:
        svi = SVI(model, AutoDelta(model), torchopt.adam(0.05), compiled=True)
        sizes.clear()
        data = x[:rows], y[:rows]
        result = Ensemble(svi, **settings).run(random.split(random.key(0), members), 1, *data)
        assert result.losses.shape == (1, members)
        return sizes

    assert sizes_of(10, 1_000) == [4, 4, 4]  # in a MiB there is room for four
    assert sizes_of(9, 1_000) == [3, 3, 3]
    assert sizes_of(10, 10) == [10]
    assert sizes_of(10, 1_000, chunk_size=10) == [10]
    assert sizes_of(1, 1_000) == [1]
    with disable_jit():
        assert sizes_of(10, 1_000) == [10]


@pytest.mark.slow
@pytest.mark.compiled
def test_runs_of_one_kind_share_their_graph() -> None:
    svi = SVI(NET, AutoNormal(NET), torchopt.adam(0.05), compiled=True)
    ensemble, data = Ensemble(svi), regression_data()
    state = ensemble.init(random.split(random.key(0), 2), *data)
    first = ensemble.run_from(state, 5, *data)
    again = ensemble.run_from(state, 5, *data)
    ensemble.run_from(again.state, 5, *data)
    assert torch.equal(first.losses, again.losses)
    _, many = ensemble._loops
    assert many._built.info().misses == 1
