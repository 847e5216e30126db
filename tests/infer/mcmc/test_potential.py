"""The unconstrained log density: its values, its maps, where it starts, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from purepyro import Module, PyroParam, PyroSample, init, jit, random
from purepyro._errors import (
    DeclarationError,
    MissingNameError,
    ShapeError,
    SupportError,
    UnknownNameError,
)
from purepyro.infer import (
    InitSite,
    Potential,
    init_to_feasible,
    init_to_median,
    init_to_sample,
    init_to_value,
)

Initializer = Callable[[InitSite, random.Key], Tensor]

KEY = random.key(0)


def nested(y: Tensor) -> None:
    low = pyro.sample("low", dist.Gamma(2.0, 1.0))
    x = pyro.sample("x", dist.Uniform(low, low + 3.0))
    parts = pyro.sample("parts", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", len(y)):
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        pyro.sample("y", dist.Normal(x + parts[0], scale), obs=y)


Y = torch.tensor([0.5, -1.0, 2.0])


def by_hand(unconstrained: dict[str, Tensor], y: Tensor) -> Tensor:
    low = unconstrained["low"].exp()
    total = dist.Gamma(2.0, 1.0).log_prob(low) + unconstrained["low"]
    unit = unconstrained["x"].sigmoid()
    x = low + 3.0 * unit
    total = total - math.log(3.0) + (3.0 * unit * (1.0 - unit)).log()
    transform = torch.distributions.biject_to(constraints.simplex)
    parts = transform(unconstrained["parts"])
    total = total + dist.Dirichlet(torch.ones(3)).log_prob(parts)
    total = total + transform.log_abs_det_jacobian(unconstrained["parts"], parts)
    scale = unconstrained["scale"].exp()
    total = total + (dist.HalfCauchy(1.0).log_prob(scale) + unconstrained["scale"]).sum()
    return total + dist.Normal(x + parts[0], scale).log_prob(y).sum()


def test_value_and_gradient_are_those_by_hand() -> None:
    potential = Potential(nested)
    start = potential.init(KEY, Y)
    value, gradient = potential.value_and_grad(start, Y)
    torch.testing.assert_close(value, by_hand(start, Y))
    wanted = torch.func.grad(by_hand)(start, Y)
    for name in wanted:
        torch.testing.assert_close(gradient[name], wanted[name])


def test_it_agrees_with_pyro() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.StudentT(3.0, loc[0], scale), obs=y)

    _, energy, _, _ = initialize_model(model, (Y,))
    start = Potential(model).init(KEY, Y)
    torch.testing.assert_close(Potential(model).log_density(start, Y), -energy(start))


def test_it_is_legal_under_transforms_and_jit() -> None:
    potential = Potential(nested)
    keys = random.split(KEY, 3)
    starts = torch.vmap(lambda key: potential.init(key, Y))(keys)
    values, gradients = torch.vmap(lambda each: potential.value_and_grad(each, Y))(starts)
    for i in range(3):
        own = {name: value[i] for name, value in starts.items()}
        assert all(torch.equal(own[n], v) for n, v in potential.init(keys[i], Y).items())
        value, gradient = potential.value_and_grad(own, Y)
        torch.testing.assert_close(values[i], value)
        torch.testing.assert_close(gradients["scale"][i], gradient["scale"])
        direct = torch.func.grad(lambda each: potential.log_density(each, Y))(own)
        torch.testing.assert_close(direct["x"], gradient["x"])


@pytest.mark.compiled
def test_jit_is_eager() -> None:
    potential = Potential(nested)
    start = potential.init(KEY, Y)
    value, gradient = potential.value_and_grad(start, Y)
    compiled = jit(potential.value_and_grad)(start, Y)
    torch.testing.assert_close(compiled[0], value)
    torch.testing.assert_close(compiled[1], gradient)


def test_maps_are_inverse() -> None:
    potential = Potential(nested)
    start = potential.init(KEY, Y)
    values = potential.constrain(start, Y)
    assert float(values["low"]) < float(values["x"]) < float(values["low"]) + 3.0
    again = potential.unconstrain(values, Y)
    for name, value in start.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5)


def test_deterministic_sites_come_with_the_values() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("square", z**2)

    found = Potential(model).sites({"z": torch.tensor(3.0)})
    assert found == {"z": torch.tensor(3.0), "square": torch.tensor(9.0)}
    assert set(Potential(model).constrain({"z": torch.tensor(3.0)})) == {"z"}


def mixture(x: Tensor) -> None:
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        which = pyro.sample("which", dist.Bernoulli(weight))
        pyro.sample("x", dist.Normal(loc[which.long()], 0.5), obs=x)


def test_discrete_sites_are_summed_out() -> None:
    potential = Potential(mixture)
    start = potential.init(KEY, Y)
    assert set(start) == {"weight", "loc"}

    def wanted(start: dict[str, Tensor]) -> Tensor:
        weight = start["weight"].sigmoid()
        prior = dist.Beta(2.0, 2.0).log_prob(weight) + (weight * (1 - weight)).log()
        prior = prior + dist.Normal(0.0, 1.0).log_prob(start["loc"]).sum()
        each = dist.Normal(start["loc"], 0.5).log_prob(Y.unsqueeze(-1))
        logs = torch.stack([(1 - weight).log(), weight.log()])
        return prior + (each + logs).logsumexp(-1).sum()

    value, gradient = potential.value_and_grad(start, Y)
    torch.testing.assert_close(value, wanted(start))
    torch.testing.assert_close(gradient["loc"], torch.func.grad(wanted)(start)["loc"])
    starts = torch.vmap(lambda key: potential.init(key, Y))(random.split(KEY, 2))
    many = torch.vmap(lambda each: potential.log_density(each, Y))(starts)
    torch.testing.assert_close(many[1], wanted({n: v[1] for n, v in starts.items()}))


def test_a_chain_of_discrete_sites_is_summed_out() -> None:
    def model(x: Tensor) -> None:
        stay = pyro.sample("stay", dist.Beta(2.0, 1.0))
        state: Any = torch.tensor(0)
        for i in pyro.markov(range(len(x))):
            probs = torch.where(state == 1, stay, 1.0 - stay)
            state = pyro.sample(f"state_{i}", dist.Bernoulli(probs)).long()
            pyro.sample(f"x_{i}", dist.Normal(state * 2.0, 1.0), obs=x[i])

    potential = Potential(model)
    start = potential.init(KEY, Y)
    stay = start["stay"].sigmoid()
    total = torch.zeros(())
    for path in torch.cartesian_prod(*[torch.arange(2)] * len(Y)):
        prob, before = torch.ones(()), torch.tensor(0)
        for i, now in enumerate(path):
            up = stay if bool(before == 1) else 1.0 - stay
            prob = prob * torch.where(now == 1, up, 1.0 - up)
            prob = prob * dist.Normal(now * 2.0, 1.0).log_prob(Y[i]).exp()
            before = now
        total = total + prob
    prior = dist.Beta(2.0, 1.0).log_prob(stay) + (stay * (1 - stay)).log()
    torch.testing.assert_close(potential.log_density(start, Y), total.log() + prior)


def test_a_prior_may_be_improper() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.ImproperUniform(constraints.real, (), ()))
        scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), (2,)))
        pyro.sample("y", dist.Normal(loc, scale[0] + scale[1]), obs=y)

    potential, y = Potential(model), torch.tensor(1.0)
    start = potential.init(KEY, y)
    assert start["scale"].shape == (2,)
    wanted = dist.Normal(start["loc"], start["scale"].exp().sum()).log_prob(y)
    torch.testing.assert_close(potential.log_density(start, y), wanted + start["scale"].sum())


def test_params_are_fixed() -> None:
    class Line(Module):
        scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
        z = PyroSample(lambda self: dist.Normal(0.0, self.scale))

        def forward(self) -> Tensor:
            return self.z

    line = Line()
    potential = Potential(line, init(line, KEY))
    value = potential.log_density({"z": torch.tensor(1.0)})
    torch.testing.assert_close(value, dist.Normal(0.0, 2.0).log_prob(torch.tensor(1.0)))
    with pytest.raises(MissingNameError, match="'scale'"):
        Potential(line).init(KEY)
    with pytest.raises(UnknownNameError, match="'other'"):
        Potential(line, {**init(line, KEY), "other": torch.zeros(())}).init(KEY)


def test_float64_stays_float64() -> None:
    def model() -> None:
        pyro.sample("z", dist.LogNormal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))

    potential = Potential(model)
    start = potential.init(KEY)
    value, gradient = potential.value_and_grad(start)
    assert {start["z"].dtype, value.dtype, gradient["z"].dtype} == {torch.float64}


@pytest.mark.parametrize("strategy", [init_to_feasible, init_to_median, init_to_sample])
def test_every_strategy_starts_in_the_support(strategy: Initializer) -> None:
    potential = Potential(nested, init_strategy=strategy)
    assert bool(potential.is_finite(potential.init(KEY, Y), Y))


def test_values_to_start_from() -> None:
    strategy = init_to_value(values={"low": torch.tensor(1.5)})
    start = Potential(nested, init_strategy=strategy).init(KEY, Y)
    torch.testing.assert_close(start["low"], torch.tensor(1.5).log())
    strategy = init_to_value(values={"lwo": torch.tensor(1.5)})
    with pytest.raises(UnknownNameError, match=r"'lwo'.*Did you mean 'low'"):
        Potential(nested, init_strategy=strategy).init(KEY, Y)


# What it refuses


def test_a_discrete_site_without_end_is_refused() -> None:
    def model() -> None:
        pyro.sample("rate", dist.Gamma(1.0, 1.0))
        pyro.sample("count", dist.Poisson(3.0))

    with pytest.raises(DeclarationError, match=r"'count'.*Poisson.*finite list"):
        Potential(model).init(KEY)


def test_a_point_mass_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"'z' is a Delta.*pyro.deterministic"):
        Potential(lambda: pyro.sample("z", dist.Delta(torch.tensor(1.0)))).init(KEY)


def test_a_subsampled_plate_is_refused_and_given_rows_are_not() -> None:
    def model(y: Tensor, rows: Tensor | None) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        size = None if rows is not None else 2
        with pyro.plate("rows", 4, subsample_size=size, subsample=rows) as index:
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y[index])

    y = torch.arange(4.0)
    with pytest.raises(DeclarationError, match=r"'rows' draws a subsample.*subsample=rows"):
        Potential(model).init(KEY, y, None)
    start = {"loc": torch.tensor(0.5)}
    wanted = dist.Normal(0.0, 1.0).log_prob(start["loc"])
    wanted = wanted + 2.0 * dist.Normal(0.5, 1.0).log_prob(y[1:3]).sum()
    found = Potential(model).log_density(start, y, torch.tensor([1, 2]))
    torch.testing.assert_close(found, wanted)


def test_data_that_were_left_out_are_refused() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    with pytest.raises(MissingNameError, match=r"observed nothing.*None"):
        Potential(model).init(KEY, Y)
    assert set(Potential(model).init(KEY, Y, Y)) == {"slope"}
    conditioned = poutine.condition(model, data={"y": Y})
    assert set(Potential(conditioned).init(KEY, Y)) == {"slope"}


def test_a_model_without_a_site_to_move_is_refused() -> None:
    with pytest.raises(MissingNameError, match="no latent site"):
        Potential(lambda: None).init(KEY)
    with pytest.raises(MissingNameError, match="only discrete"):
        Potential(lambda: pyro.sample("k", dist.Bernoulli(0.5))).init(KEY)


def test_a_mark_that_means_something_else_is_refused() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
        pyro.sample("x", dist.Normal(loc + k, 1.0), obs=x)

    with pytest.raises(DeclarationError, match=r"'k' is marked by .*sequential"):
        Potential(model).init(KEY, torch.tensor(0.0))


def test_a_bad_start_names_the_site() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("fine", dist.Normal(loc, 1.0), obs=torch.tensor(0.0))
        pyro.sample("y", dist.Normal(loc, 1.0).expand([2]).to_event(1), obs=y)

    with pytest.raises(SupportError, match=r"observed site 'y'.*init_to_median"):
        Potential(model).init(KEY, torch.tensor([0.0, torch.nan]))

    def root(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal((0.0 * z).abs().sqrt(), 1.0), obs=y)

    with pytest.raises(SupportError, match="'y' has a gradient by 'z' that is not finite"):
        Potential(root).init(KEY, torch.tensor(0.0))


def test_names_and_shapes_are_checked() -> None:
    potential = Potential(nested)
    start = potential.init(KEY, Y)
    with pytest.raises(MissingNameError, match="'low'"):
        potential.log_density({n: v for n, v in start.items() if n != "low"}, Y)
    with pytest.raises(UnknownNameError, match="'y'"):
        potential.log_density({**start, "y": torch.zeros(3)}, Y)
    with pytest.raises(ShapeError, match=r"'parts' is float32\[3\], .* \[2\]"):
        potential.log_density({**start, "parts": torch.zeros(3)}, Y)
    values = potential.constrain(start, Y)
    with pytest.raises(SupportError, match=r"'low'.*outside the support"):
        potential.unconstrain({**values, "low": torch.tensor(-1.0)}, Y)
