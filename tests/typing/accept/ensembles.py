"""Ensembles carry the model's arguments."""

from __future__ import annotations

from typing import assert_type

import pyro
import pyro.distributions as dist
import torch
import torchopt
from torch import Tensor

from purepyro import Ensemble, Module, PyroSample, random
from purepyro.ensemble import (
    ClassPrediction,
    EnsemblePredictive,
    EnsembleRunResult,
    EnsembleState,
    Prediction,
    calibration_error,
    coverage,
    quantile_calibration_error,
)
from purepyro.infer import SVI, AutoNormal, SVIState, scale


class Line(Module):
    width: Tensor
    slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        mean = self.slope * x
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, 1.0), obs=y)


model, keys = Line(torch.tensor(1.0)), random.split(random.key(0), 3)
x, y = torch.ones(5), torch.zeros(5)

# Of one SVI for all.
ensemble = Ensemble(SVI(model, AutoNormal(model), torchopt.adam(1e-2)), chunk_size=2)
as_annotated: Ensemble[[Tensor, Tensor | None]] = ensemble
state = ensemble.init(keys, x, y)
assert_type(state, EnsembleState)
assert_type(state.svi, SVIState)
assert_type(state.alive, Tensor)
assert_type(ensemble.step(state, x, y), tuple[EnsembleState, Tensor])
assert_type(ensemble.step(state, x, y=y), tuple[EnsembleState, Tensor])
result = ensemble.run(keys, 3, x, y)
assert_type(result, EnsembleRunResult)
assert_type(result.state, EnsembleState)
assert_type(result.losses, Tensor)
assert_type(result.quarantined, dict[int, int])
last, losses = ensemble.run_from(state, 3, x, y)
assert_type(last, EnsembleState)

# Members.
one = ensemble.member(state, 1)
assert_type(one, SVIState)
assert_type(ensemble.select(state, [2, 0]), EnsembleState)
assert_type(ensemble.select(state, state.alive), EnsembleState)
assert_type(ensemble.drop(state, [True, False, False]), EnsembleState)
assert_type(ensemble.append(state, one), EnsembleState)
assert_type(ensemble.append(state, [one, one]), EnsembleState)
assert_type(ensemble.append(state, state), EnsembleState)


# Of an SVI for each.
def make_svi(setting: dict[str, Tensor]) -> SVI[[Tensor, Tensor | None]]:
    own = Line(setting["width"])
    optim = torchopt.chain(torchopt.adam(1.0), scale(setting["rate"]))
    return SVI(own, AutoNormal(own), optim)


settings = {"width": torch.ones(3), "rate": torch.ones(3)}
several = Ensemble(make_svi, members=settings, map="loop", in_dims=(0, None))
as_annotated = several
own = several.init(keys, torch.ones(3, 5), y)
assert_type(own, EnsembleState)
assert_type(several.step(own, torch.ones(3, 5), y), tuple[EnsembleState, Tensor])
assert_type(several.svi_of(own, 0).run(keys[0], 2, x, y).losses, Tensor)

# Prediction.
predictive = ensemble.predictive(state, num_samples=2)
assert_type(predictive.predict(keys[0], x), Prediction)
assert_type(predictive.predict(keys[0], x).variance, Tensor)
assert_type(predictive.nll(keys[0], x, y), Tensor)
by_hand = EnsemblePredictive(model, state.svi.params, guide=AutoNormal(model))
assert_type(by_hand.cdf(keys[0], x, y=y), Tensor)


def classify(x: Tensor) -> ClassPrediction:
    return by_hand.predict_proba(keys[0], x)


assert_type(calibration_error(torch.eye(2), torch.arange(2)), Tensor)
assert_type(coverage(torch.rand(5), torch.rand(2)), Tensor)
assert_type(quantile_calibration_error(torch.rand(5)), Tensor)
