"""Counts are whole numbers, of whatever library, wherever they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import Ensemble, expand_state, random
from purepyro._core._whole_numbers import whole
from purepyro._errors import PurepyroError
from purepyro.ensemble import EnsemblePredictive, quantile_calibration_error
from purepyro.infer import SVI, AutoNormal, Predictive, RenyiELBO, Trace_ELBO, TraceEnum_ELBO

Y = torch.tensor([1.0, 2.0, 6.0])
KEY = random.key(0)


def model(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 3, subsample_size=len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


SVI_OF_MODEL = SVI(model, AutoNormal(model), torchopt.adam(0.1))
ENSEMBLE = Ensemble(SVI_OF_MODEL)
STATE = ENSEMBLE.init(random.split(KEY, 4), Y)

COUNTS: dict[str, Callable[[Any], object]] = {
    "num_particles": lambda n: Trace_ELBO(n).num_particles,
    "of Renyi": lambda n: RenyiELBO(num_particles=n).num_particles,
    "chunk_size": lambda n: Trace_ELBO(3, chunk_size=n).chunk_size,
    "max_plate_nesting": lambda n: TraceEnum_ELBO(max_plate_nesting=n).max_plate_nesting,
    "num_steps": lambda n: len(SVI_OF_MODEL.run(KEY, n, Y).losses),
    "run_from": lambda n: len(SVI_OF_MODEL.run_from(SVI_OF_MODEL.init(KEY, Y), n, Y).losses),
    "epochs": lambda n: len(SVI_OF_MODEL.fit(KEY, [Y], data_size=3, epochs=n).losses),
    "data_size": lambda n: len(SVI_OF_MODEL.fit(KEY, [Y], data_size=n).losses) * n,
    "steps of members": lambda n: len(ENSEMBLE.run_from(STATE, n, Y).losses),
    "chunk_size of members": lambda n: Ensemble(SVI_OF_MODEL, chunk_size=n).chunk_size,
    "member": lambda n: ENSEMBLE.member(STATE, n) and n,
    "num_levels": lambda n: (
        quantile_calibration_error(torch.rand(2), num_levels=n) is not None and n
    ),
    "num_samples": lambda n: len(Predictive(model, num_samples=n)(KEY, Y)["loc"]),
    "num_samples of members": lambda n: (
        EnsemblePredictive(model, STATE.svi.params, num_samples=n).num_samples
    ),
    "expand_state": lambda n: len(expand_state({"a": torch.zeros(2)}, n)["a"]),
}


@pytest.mark.parametrize("what", COUNTS)
def test_a_count_of_numpy_is_one(what: str) -> None:
    assert COUNTS[what](np.int64(3)) == 3


@pytest.mark.parametrize("what", COUNTS)
@pytest.mark.parametrize("count", [True, 2.0, "3", -5, torch.tensor(3), np.array([1, 2])])
def test_no_count_is_told_so(what: str, count: object) -> None:
    with pytest.raises(PurepyroError):
        COUNTS[what](count)


@given(st.integers(-5, 5), st.integers(-5, 5), st.sampled_from([int, np.int64, np.int8]))
def test_whole(number: int, least: int, kind: type[int]) -> None:
    found = whole(kind(number), least)
    assert found == (number if number >= least else None)
    assert type(found) in (int, type(None))
    assert whole(cast("object", float(number))) is None
