"""Values of sites and parameters are real, dense tensors; others are refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor

from purepyro import Ensemble, Module, PyroParam, apply, init, log_density, random, trace
from purepyro._errors import DtypeError
from purepyro.infer import SVI, AutoNormal, LogLikelihood, Predictive

KEY, Y = random.key(0), torch.tensor([1.0, 2.0, 6.0])


class Mean(Module):
    scale = PyroParam(torch.ones(3))

    def forward(self, y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("y", dist.Normal(loc, self.scale), obs=y)


MODEL = Mean()
SVI_OF_MODEL = SVI(MODEL, AutoNormal(MODEL), torchopt.adam(0.1))
PARAMS, STATE = init(MODEL, KEY), SVI_OF_MODEL.init(KEY, Y)
DRAWS = {"loc": torch.zeros(2)}


def ragged() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        made: Tensor = torch.nested.nested_tensor([torch.ones(1), torch.ones(2), torch.ones(1)])
    return made


KINDS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "complex": (lambda: Y.to(torch.complex64), r"is complex64\[3\].*torch\.view_as_real"),
    "sparse": (
        lambda: Y.to_sparse(),
        r"is float32\[3\], of the layout torch\.sparse_coo.*to_dense",
    ),
    "nested": (ragged, r"is float32\[nested\], a nested tensor.*Pad it"),
}

USES: dict[str, Callable[[Tensor], object]] = {
    "apply": lambda y: apply(MODEL, PARAMS, KEY, y),
    "trace": lambda y: trace(MODEL, PARAMS, KEY, y),
    "log_density": lambda y: log_density(MODEL, PARAMS, {"loc": torch.tensor(0.0)}, y),
    "init": lambda y: SVI_OF_MODEL.init(KEY, y),
    "step": lambda y: SVI_OF_MODEL.step(STATE, y),
    "fit": lambda y: SVI_OF_MODEL.fit(KEY, [y], data_size=3),
    "ensemble": lambda y: Ensemble(SVI_OF_MODEL).init(random.split(KEY, 2), y),
    "predictive": lambda y: Predictive(MODEL, posterior_samples=DRAWS, params=PARAMS)(KEY, y),
    "log_likelihood": lambda y: LogLikelihood(MODEL, PARAMS, DRAWS)(y),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
def test_data_that_are_not_real_and_dense(use: str, kind: str) -> None:
    make, match = KINDS[kind]
    with pytest.raises(DtypeError, match=rf"The observed value of the site 'y' {match}"):
        USES[use](make())


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_parameters_that_are_not(kind: str) -> None:
    make, match = KINDS[kind]
    with pytest.raises(DtypeError, match=rf"The parameter 'scale' {match}"):
        apply(MODEL, {"scale": make()}, KEY, Y)
    with pytest.raises(DtypeError, match=rf"The value of the site 'loc' {match}"):
        log_density(MODEL, PARAMS, {"loc": make()}, Y)
    with pytest.raises(DtypeError, match=rf"The value of 'loc' in posterior_samples {match}"):
        Predictive(MODEL, posterior_samples={"loc": make()})


def test_the_ways_out() -> None:
    right = log_density(MODEL, PARAMS, {"loc": torch.tensor(0.0)}, Y)
    assert log_density(MODEL, PARAMS, {"loc": torch.tensor(0.0)}, Y.to_sparse().to_dense()) == right
    both = torch.view_as_real(Y.to(torch.complex64))
    assert log_density(MODEL, PARAMS, {"loc": torch.tensor(0.0)}, both[:, 0]) == right
    assert torch.nested.to_padded_tensor(ragged(), 0.0).shape == (3, 2)


@pytest.mark.parametrize("param", [torch.ones(3, dtype=torch.int64), 1.0])
def test_parameters_without_gradients(param: object) -> None:
    params: dict[str, object] = {**STATE.params, "scale": param}
    state = STATE._replace(params=params)  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match=r"The parameter 'scale' is .*have gradients.*svi.init"):
        SVI_OF_MODEL.step(state, Y)
    with pytest.raises(DtypeError, match=r"'loc' as \[1\.0\], which is no Tensor"):
        Predictive(MODEL, posterior_samples={"loc": [1.0]})  # type: ignore[dict-item]
