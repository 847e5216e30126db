"""Chunks bound what is held at once, and are all alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchopt
from torch import Tensor

from models import regression, regression_data
from purepyro import Ensemble, random
from purepyro.ensemble import EnsembleState, _run
from purepyro.ensemble._train import Training, train
from purepyro.infer import SVI, AutoNormal

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

    monkeypatch.setattr(_run, "train", watched)
    keys = random.split(random.key(0), 5)
    keys[:, 1] = torch.arange(5)
    result = Ensemble(FIT, chunk_size=2).run(keys, 3, *regression_data())
    assert calls == [([0, 1], 3), ([2, 3], 3), ([4, 4], 3)]  # the last is padded
    assert result.state.svi.key[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert result.losses.shape == (3, 5)


def test_a_bar_is_shown_for_each_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = Ensemble(FIT, chunk_size=1, progress_bar=True)
    ensemble.run(random.split(random.key(0), 2), 3, *regression_data())
    assert capsys.readouterr().err.count("3/3") == 2


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
