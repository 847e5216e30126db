"""Law 15: no sequence of earlier calls changes what a call gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from torch import Tensor

from purepyro import Module, PyroParam, apply, init, random, trace
from purepyro._core._trees import Frame, tensors_in
from purepyro.infer import (
    SVI,
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuide,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    Predictive,
)

Model = Callable[[Tensor, Tensor], object]
Guide = AutoGuide[Tensor, Tensor]
Make = Callable[[Model], Guide]
Args = tuple[Tensor, Tensor]
KEY = random.key(3)


class Width(Module):
    """A support that a parameter bounds, and one that data bound."""

    width = PyroParam(torch.tensor(3.0))

    def forward(self, x: Tensor, keep: Tensor) -> None:
        width = self.width.to(x)
        pyro.sample("u", dist.Uniform(torch.zeros_like(width), width))
        centre = pyro.sample("c", dist.Uniform(x.min() - 1.0, x.max() + 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(centre, torch.ones_like(centre)), obs=x)


def bounded(x: Tensor, keep: Tensor) -> None:
    """The same by a statement, whose starting value is a literal."""
    width = pyro.param("width", torch.tensor(3.0)).to(x)
    pyro.sample("u", dist.Uniform(torch.zeros_like(width), width))
    pyro.sample("z", dist.Uniform(x.new_zeros(()), 2.0 * width))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(width, torch.ones_like(width)), obs=x)


def masked(x: Tensor, keep: Tensor) -> None:
    """Rows that are left out, with their latent site."""
    centre = pyro.sample("c", dist.Normal(x.new_zeros(()), x.new_ones(())))
    with pyro.plate("data", len(x)), poutine.mask(mask=keep):
        z = pyro.sample("z", dist.LogNormal(centre, x.new_ones(())))
        pyro.sample("x", dist.Normal(z, x.new_ones(())), obs=x)


def rows(x: Tensor, keep: Tensor) -> None:
    """Rows with bounds of their own, some of them or in another order."""
    order = keep.to(torch.int64).argsort()
    pyro.sample("c", dist.Normal(x.new_zeros(()), x.new_ones(())))
    with pyro.plate("data", len(x), subsample=order):
        z = pyro.sample("z", dist.Uniform(x.new_zeros(()), x.abs()[order] + 1.0))
        pyro.sample("x", dist.Normal(z, x.new_ones(())), obs=x[order])


def branching(x: Tensor, keep: Tensor) -> None:
    """A structure that depends on the numbers in the data."""
    zero, one = x.new_zeros(()), x.new_ones(())
    if x.sum() > 1.0:
        z = pyro.sample("z", dist.LogNormal(zero, one))
    else:
        z = pyro.sample("z", dist.Normal(zero, one))
    if bool(keep[0]):
        pyro.sample("more", dist.Normal(zero, one))
    pyro.sample("other", dist.Normal(zero, one))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, one), obs=x)


MODELS: list[Model] = [Width(), bounded, masked, rows, branching]
MAKES: list[Make] = [
    AutoDelta,
    AutoNormal,
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoLowRankMultivariateNormal,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    lambda model: AutoGuideList(
        [
            AutoDelta(poutine.block(model, hide=["z", "u"])),
            AutoNormal(poutine.block(model, expose=["z", "u", "data"])),
        ]
    ),
]


CALLS = ("init", "median", "quantiles", "sample_posterior", "apply", "trace", "step", "Predictive")


class Call(NamedTuple):
    """One call, with the data it gets; one that is not legal has an argument too many."""

    name: str
    args: Args
    legal: bool


def outcome(call: Call, model: Model, make: Make, guide: Guide) -> object:
    """What the call gives on ``guide``, or its error."""
    args: tuple[Any, ...] = call.args if call.legal else (*call.args, "one too many")
    # The parameters come from a guide of their own, so only the call meets the guide's memory.
    params = {**init(model, KEY, *call.args), **init(make(model), KEY, *call.args)}
    if "width" in params:
        params["width"] = call.args[0].abs().max().float() + 1.0
    svi = SVI(model, guide, torchopt.adam(0.1))
    drawn = Predictive(model, guide=guide, params=params, num_samples=2)
    calls: dict[str, Callable[[], object]] = {
        "init": lambda: init(guide, KEY, *args),
        "median": lambda: guide.median(params, *args),
        "quantiles": lambda: guide.quantiles(params, [0.1, 0.8], *args),
        "sample_posterior": lambda: guide.sample_posterior(params, KEY, *args),
        "apply": lambda: apply(guide, params, KEY, *args),
        "trace": lambda: trace(guide, params, KEY, *args)[1].log_density,
        "step": lambda: svi.step(svi.init(KEY, *args), *args),
        "Predictive": lambda: drawn(KEY, *args),
    }
    try:
        return calls[call.name]()
    except Exception as error:
        return type(error), str(error)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """A call on data of some size, scale, dtype and pattern of rows."""
    size = draw(st.sampled_from([1, 3, 4]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    scale = draw(st.sampled_from([-3.0, 0.1, 1.0, 20.0]))
    keep = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    x = scale * torch.linspace(0.5, 2.0, size, dtype=dtype)
    legal = draw(st.sampled_from([True, True, True, False]))
    return Call(draw(st.sampled_from(CALLS)), (x, torch.tensor(keep)), legal)


@pytest.mark.parametrize("model", MODELS, ids=["Width", "bounded", "masked", "rows", "branching"])
@given(
    make=st.sampled_from(MAKES),
    before=st.lists(calls(), min_size=1, max_size=3),
    call=calls(),
)
def test_a_call_gives_what_a_first_call_gives(
    model: Model, make: Make, before: list[Call], call: Call
) -> None:
    used = make(model)
    for each in before:
        outcome(each, model, make, used)
    expected = outcome(call, model, make, make(model))
    found = outcome(call, model, make, used)
    assert same(found, expected), (found, expected)


def same(one: object, other: object) -> bool:
    """Whether two trees of tensors are equal, bit for bit."""
    if Frame.of(one) != Frame.of(other):
        return False
    pairs = zip(tensors_in(one), tensors_in(other), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
