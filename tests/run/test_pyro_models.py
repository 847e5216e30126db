"""``apply`` and its siblings on any Pyro model: functions, PyroModules, ``poutine`` wrappers."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.nn import PyroModule
from pyro.nn import PyroParam as PlainParam
from pyro.nn import PyroSample as PlainSample
from torch import Tensor, nn

from models import regression, regression_data
from purepyro import (
    apply,
    apply_with_state,
    constrain,
    init,
    init_state,
    log_density,
    random,
    trace,
    unconstrain,
)
from purepyro._errors import (
    MissingNameError,
    MutationError,
    ShapeError,
    SupportError,
    UnknownNameError,
)


def scaled(x: Tensor) -> Tensor:
    """A function with both kinds of statements."""
    scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    shift = pyro.param("shift", lambda: torch.randn(3))
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    return scale * x + shift + z


def test_a_function(key: random.Key) -> None:
    x = torch.ones(3)
    params = init(scaled, key, x)
    assert set(params) == {"scale", "shift"}
    torch.testing.assert_close(constrain(scaled, params, x)["scale"], torch.tensor(2.0))
    torch.testing.assert_close(unconstrain(scaled, constrain(scaled, params, x), x), params)
    y, record = trace(scaled, params, key, x)
    torch.testing.assert_close(y, 2 * x + params["shift"] + record.latents["z"])
    assert torch.equal(apply(scaled, params, key, x), y)
    assert len(pyro.get_param_store()) == 0


def test_a_function_checks_its_parameters(key: random.Key) -> None:
    x = torch.ones(3)
    params = init(scaled, key, x)
    with pytest.raises(MissingNameError, match=r"no 'scale'.*init\(model, key, \*args\)"):
        apply(scaled, {"shift": params["shift"]}, key, x)
    with pytest.raises(UnknownNameError, match=r"'scal', which names no parameter.*'scale'"):
        apply(scaled, {**params, "scal": torch.zeros(())}, key, x)
    with pytest.raises(ShapeError, match=r"'scale' has the shape \[1\]"):
        apply(scaled, {**params, "scale": torch.zeros(1)}, key, x)
    with pytest.raises(SupportError, match=r"'scale' .*is not finite"):
        apply(scaled, {**params, "scale": torch.tensor(torch.nan)}, key, x)


def test_a_param_statement_without_initial_value(key: random.Key) -> None:
    with pytest.raises(MissingNameError, match=r"pyro\.param\('w'\) has no initial value"):
        init(lambda: pyro.param("w"), key)


def test_a_function_that_calls_pyro_module(key: random.Key) -> None:
    net = nn.Linear(2, 1)

    def model(x: Tensor) -> Tensor:
        pyro.module("net", net)
        out: Tensor = net(x)
        return out

    x = torch.ones(1, 2)
    params = init(model, key, x)
    assert set(params) == {"net$$$weight", "net$$$bias"}
    ones = {name: torch.ones_like(value) for name, value in params.items()}
    assert torch.equal(apply(model, ones, key, x), torch.full((1, 1), 3.0))
    gradients = torch.func.grad(lambda params: apply(model, params, key, x).sum())(ones)
    assert all(bool((gradient == 1).all()) for gradient in gradients.values())
    assert not torch.equal(net.weight, torch.ones(1, 2))


class Plain(PyroModule):  # type: ignore[misc, unused-ignore]
    """A PyroModule with each kind of attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = PlainParam(torch.tensor(2.0), constraint=constraints.positive)
        self.weight = nn.Parameter(torch.ones(2))
        self.z = PlainSample(dist.Normal(0.0, 1.0))
        self.net = nn.Linear(2, 1)
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.net(x * self.weight)) * self.scale + self.z
        return out


def test_a_pyro_module(key: random.Key) -> None:
    model, x = Plain(), random.normal(key, 6, 2)
    params = init(model, key, x)
    assert set(params) == {"scale", "weight", "net$$$weight", "net$$$bias"}
    model.norm.eval()
    gradients = torch.func.grad(lambda params: apply(model, params, key, x).sum())(params)
    assert all(bool((gradient != 0).any()) for gradient in gradients.values())
    torch.testing.assert_close(
        apply(model, {**params, "scale": torch.tensor(0.0)}, key, x) - trace_z(model, params, x),
        (apply(model, params, key, x) - trace_z(model, params, x)) / 2,
    )
    assert len(pyro.get_param_store()) == 0


def trace_z(model: Callable[[Tensor], Tensor], params: dict[str, Tensor], x: Tensor) -> Tensor:
    return trace(model, params, random.key(0), x)[1].latents["z"]


def test_the_buffers_of_a_pyro_module(key: random.Key) -> None:
    model, x = Plain(), random.normal(key, 6, 2)
    params, state = init(model, key, x), init_state(model)
    assert _batches(model) == 0
    with pytest.raises(MutationError, match=r"norm\.num_batches_tracked"):
        apply(model, params, key, x)
    _, new = apply_with_state(model, params, key, state, x)
    assert new["norm.num_batches_tracked"].item() == 1
    assert not torch.equal(new["norm.running_mean"], state["norm.running_mean"])
    assert _batches(model) == 0


def _batches(model: Plain) -> int:
    count = model.norm.num_batches_tracked
    assert count is not None
    return int(count)


# Handlers


def two_sites() -> Tensor:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    return pyro.sample("b", dist.Normal(a, 1.0))


def test_condition(key: random.Key) -> None:
    model = poutine.condition(two_sites, data={"a": torch.tensor(1.5)})
    _, record = trace(model, {}, key)
    assert record.observed == {"a": torch.tensor(1.5)}
    assert set(record.latents) == {"b"}


def test_do(key: random.Key) -> None:
    _, record = trace(poutine.do(two_sites, data={"a": torch.tensor(9.0)}), {}, key)
    _, free = trace(two_sites, {}, key)
    noise = free.latents["b"] - free.latents["a"]
    torch.testing.assert_close(record.latents["b"], 9.0 + noise)


def test_block_hides_and_still_draws_by_key(key: random.Key) -> None:
    hidden = poutine.block(two_sites, hide=["a"])
    before = torch.get_rng_state()
    value, record = trace(hidden, {}, key)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(record.latents) == {"b"}
    assert torch.equal(value, apply(two_sites, {}, key))


def test_block_hides_parameters_which_still_hold(key: random.Key) -> None:
    hidden = poutine.block(scaled, hide_types=["param"])
    x = torch.ones(3)
    params = init(scaled, key, x)
    assert torch.equal(apply(hidden, params, key, x), apply(scaled, params, key, x))


def test_scale_and_mask(key: random.Key) -> None:
    _, plain = trace(two_sites, {}, key)
    _, doubled = trace(poutine.scale(two_sites, scale=2.0), {}, key)
    _, nothing = trace(poutine.mask(two_sites, mask=torch.tensor(False)), {}, key)
    torch.testing.assert_close(doubled.log_density, 2 * plain.log_density)
    assert nothing.log_density.item() == 0.0


def test_replay_and_trace(key: random.Key) -> None:
    recorded = poutine.trace(two_sites)
    value = apply(recorded, {}, key)
    again = poutine.replay(two_sites, trace=recorded.trace)
    assert torch.equal(apply(again, {}, random.key(7)), value)


def test_substitute_lift_and_uncondition(key: random.Key) -> None:
    def learnable() -> Tensor:
        return pyro.param("w", torch.tensor(0.0)) + 1.0

    fixed = poutine.substitute(learnable, data={"w": torch.tensor(4.0)})
    assert apply(fixed, {}, key).item() == 5.0
    lifted = poutine.lift(learnable, prior={"w": dist.Normal(0.0, 1.0)})
    assert set(trace(lifted, {}, key)[1].latents) == {"w"}

    def observing() -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0))

    assert set(trace(poutine.uncondition(observing), {}, key)[1].latents) == {"y"}


def test_handlers_around_a_module_keep_its_parameters_known(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    at = poutine.condition(model, data={"sigma": torch.tensor(0.5)})
    assert init(at, key) == init(model, key)
    wrapped = poutine.scale(poutine.trace(at), scale=1.0)
    _, record = trace(wrapped, init(wrapped, key), key, x, y)
    assert set(record.observed) == {"sigma", "obs"}
    with pytest.raises(MissingNameError, match=r"no 'linear\.scale', which the model reads"):
        apply(wrapped, {}, key, x, y)


def test_handlers_inside_a_model(key: random.Key) -> None:
    def model() -> Tensor:
        with poutine.condition(data={"a": torch.tensor(2.0)}):
            return two_sites()

    assert set(trace(model, {}, key)[1].observed) == {"a"}


def test_a_function_that_calls_a_module(key: random.Key) -> None:
    inner = regression()

    def model(x: Tensor) -> Tensor:
        return inner(x) * pyro.param("factor", torch.tensor(2.0))

    x = torch.ones(2, 3)
    params = init(model, key, x)
    assert set(params) == {"linear.scale", "factor"}
    expected = 2 * apply(inner, {"linear.scale": params["linear.scale"]}, key, x)
    assert torch.equal(apply(model, params, key, x), expected)


def test_apply_inside_a_model_is_a_run_of_its_own(key: random.Key) -> None:
    def model() -> Tensor:
        outer = pyro.sample("a", dist.Normal(0.0, 1.0))
        return outer + apply(two_sites, {}, key)

    value, record = trace(model, {}, key)
    assert set(record.latents) == {"a"}
    assert torch.equal(value, record.latents["a"] + apply(two_sites, {}, key))


def test_nested_plates_and_obs_masks(key: random.Key) -> None:
    def model(y: Tensor, seen: Tensor) -> None:
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            pyro.sample("y", dist.Normal(0.0, 1.0), obs=y, obs_mask=seen)

    y, seen = torch.zeros(3, 2), torch.tensor([[True, False]]).expand(3, 2)
    _, record = trace(model, {}, key, y, seen)
    assert set(record.latents) == {"y_unobserved"}
    unit = dist.Normal(0.0, 1.0).log_prob(torch.zeros(()))
    torch.testing.assert_close(record.log_densities["y_observed"].sum(), 3 * unit)
    assert torch.equal(log_density(model, {}, record.latents, y, seen), record.log_density)
