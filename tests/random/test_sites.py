"""A site of every distribution: under vmap the draws and densities of a loop, or refused by us."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from purepyro import random
from purepyro._errors import VmapError
from purepyro.infer import LogLikelihood, Predictive

How = Literal["vmap", "loop"]

# Their constructors, draws or log densities branch on values, or write them in place.
REFUSED = {
    "DiscreteHMM",
    "GaussianHMM",
    "IndependentHMM",
    "OrderedLogistic",
    "SineBivariateVonMises",
    "SineSkewed",
    "Stable",
    "StableWithLogProb",
    "Wishart",
}
# Pyro has no log density for them.
UNSCORED = {"LinearHMM"}

pytestmark = [
    # Densities by their own code, for one operation of which torch loops over the lanes.
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:class LKJCorrCholesky:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Singular sample detected"),
]


class Case(Protocol):
    @property
    def make(self) -> object: ...
    @property
    def parameters(self) -> tuple[Tensor, ...]: ...
    @property
    def label(self) -> str: ...
    @property
    def exact(self) -> bool: ...


class Found(NamedTuple):
    draws: Tensor
    density: Tensor | None


def _found(case: Case, key: random.Key, how: How) -> Found:
    """Draws and log densities of a site whose parameters are themselves values of sites."""

    def model() -> None:
        own = [
            pyro.sample(f"p{i}", dist.Delta(value, event_dim=value.dim()))
            for i, value in enumerate(case.parameters)
        ]
        make = case.make
        assert callable(make)
        fn: object = make(*own)
        assert isinstance(fn, TorchDistributionMixin)
        pyro.sample("x", fn.to_event(len(fn.batch_shape)))

    given = {f"p{i}": torch.stack([value] * 3) for i, value in enumerate(case.parameters)}
    count = None if given else 3
    predictive = Predictive(
        model, posterior_samples=given, num_samples=count, return_sites=["x"], map=how
    )
    draws = predictive(key)["x"]
    if case.label in UNSCORED or not given:
        return Found(draws, None)
    observed = pyro.poutine.condition(model, data={"x": draws[0]})
    return Found(draws, LogLikelihood(observed, {}, given, map=how)()["x"])


def test_a_site_under_vmap_is_that_of_a_loop(case: Case, key: random.Key) -> None:
    loop = _found(case, key, "loop")
    if case.label in REFUSED:
        with pytest.raises(VmapError, match=r'(?s)test_sites|site .x.|conftest.*map="loop"'):
            _found(case, key, "vmap")
        return
    mapped = _found(case, key, "vmap")
    if case.exact:
        assert torch.equal(mapped.draws, loop.draws)
    if loop.density is not None and mapped.density is not None:
        torch.testing.assert_close(
            mapped.density, loop.density, rtol=1e-5, atol=1e-5, equal_nan=True
        )
