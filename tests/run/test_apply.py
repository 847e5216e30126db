"""The pure runs on Modules: results, records, densities, and what they refuse."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor, nn

from models import BayesianRegression, regression, regression_data
from purepyro import (
    Module,
    Prior,
    PyroParam,
    PyroSample,
    apply,
    constrain,
    init,
    log_density,
    random,
    trace,
    unconstrain,
)
from purepyro._errors import (
    DeclarationError,
    DtypeError,
    DuplicateSiteError,
    KeyReuseError,
    KeyTypeError,
    MissingNameError,
    MutationError,
    ShapeError,
    SupportError,
    UnknownNameError,
)


def test_apply_returns_what_forward_returns(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    mean = apply(model, params, key, x)
    assert mean.shape == (20,)
    assert torch.equal(mean, apply(model, params, key, x, y=y))
    assert torch.equal(mean, trace(model, params, key, x, y)[0])


def test_trace_records_by_role(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    _, record = trace(model, init(model, key), key, x, y)
    assert set(record.latents) == {"linear.weight", "linear.bias", "sigma"}
    assert set(record.observed) == {"obs"}
    assert record.deterministic == {}
    assert record.log_densities["obs"].shape == (20,)
    assert set(record.values) == {"linear.weight", "linear.bias", "sigma", "obs"}


def test_methods_of_a_module_can_be_run(key: random.Key) -> None:
    class Model(Module):
        z = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self) -> Tensor:
            return self.z

        def twice(self, offset: Tensor, *, factor: float = 2.0) -> Tensor:
            return factor * self.z + offset

    model, one = Model(), torch.ones(())
    assert torch.equal(apply(model.twice, {}, key, one, factor=4.0), 4 * apply(model, {}, key) + 1)


def test_params_hold_for_all_constraints(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    low = log_density(model, {"linear.scale": torch.tensor(-3.0)}, _values(), x, y)
    prior = dist.Normal(torch.zeros(1, 3), torch.tensor(-3.0).exp()).to_event(2)
    high = log_density(model, init(model, key), _values(), x, y)
    difference = prior.log_prob(_values()["linear.weight"]) - (
        dist.Normal(torch.zeros(1, 3), 1.0).to_event(2).log_prob(_values()["linear.weight"])
    )
    torch.testing.assert_close(low - high, difference)


def test_log_density_is_the_sum_of_the_parts() -> None:
    model, (x, y) = regression(), regression_data()
    values = _values()
    mean = (x @ values["linear.weight"].mT + values["linear.bias"]).squeeze(-1)
    expected = (
        dist.Normal(0.0, 1.0).log_prob(values["linear.weight"]).sum()
        + dist.Normal(0.0, 10.0).log_prob(values["linear.bias"])
        + dist.HalfNormal(1.0).log_prob(values["sigma"])
        + dist.Normal(mean, values["sigma"]).log_prob(y).sum()
    )
    params = init(model, random.key(0))
    torch.testing.assert_close(log_density(model, params, values, x, y), expected)


def test_log_density_at_the_latents_of_a_trace(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    _, record = trace(model, params, key, x, y)
    assert torch.equal(log_density(model, params, record.latents, x, y), record.log_density)


def test_float64_throughout(key: random.Key) -> None:
    class Model(Module):
        scale = PyroParam(torch.tensor(1.0, dtype=torch.float64), constraint=constraints.positive)

        @PyroSample
        def z(self) -> Prior:
            return dist.Normal(torch.zeros((), dtype=torch.float64), self.scale)

        def forward(self) -> Tensor:
            return self.z

    _, record = trace(Model(), init(Model(), key), key)
    assert record.latents["z"].dtype == record.log_density.dtype == torch.float64


def test_an_empty_plate(key: random.Key) -> None:
    model = regression()
    with pytest.raises(ShapeError, match=r"plate 'data' has size 0.*leave the plate out"):
        apply(model, init(model, key), key, torch.zeros(0, 3))


def test_a_site_without_elements(key: random.Key) -> None:
    def model() -> Tensor:
        return pyro.sample("z", dist.Normal(0.0, 1.0).expand([0]).to_event(1))

    value, record = trace(model, {}, key)
    assert value.shape == (0,)
    assert record.log_density.item() == 0.0


def test_a_model_without_sites() -> None:
    assert log_density(lambda: None, {}, {}).item() == 0.0


def test_a_first_read_in_a_plate_is_local_to_it(key: random.Key) -> None:
    class Model(Module):
        z = PyroSample(dist.Normal(0.0, 1.0), local=True)

        def forward(self) -> Tensor:
            with pyro.plate("data", 5):
                return self.z

    assert apply(Model(), {}, key).shape == (5,)


def test_a_subsampled_plate_subsamples_parameters(key: random.Key) -> None:
    class Model(Module):
        zero = PyroParam(torch.arange(10.0), event_dim=0)
        whole = PyroParam(torch.arange(10.0))
        one = PyroParam(torch.arange(20.0).reshape(10, 2), event_dim=1)

        def forward(self) -> tuple[Tensor, ...]:
            with pyro.plate("data", 10, subsample_size=3) as index:
                inside = index, self.zero, self.whole, self.one
            return (*inside, self.zero)

    index, zero, whole, one, outside = apply(Model(), init(Model(), key), key)
    assert index.shape == (3,)
    assert torch.equal(zero, index.float())
    assert torch.equal(one[:, 0], 2 * index.float())
    assert whole.shape == (10,)
    assert outside.shape == (10,)


def test_the_indices_of_a_subsample_are_a_value(key: random.Key) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", 10, subsample_size=4) as index:
            pyro.sample("obs", dist.Normal(0.0, 1.0), obs=y[index])

    y = torch.arange(10.0)
    _, record = trace(model, {}, key, y)
    assert set(record.latents) == {"data"}
    assert torch.equal(log_density(model, {}, record.latents, y), record.log_density)
    expected = dist.Normal(0.0, 1.0).log_prob(y[record.latents["data"]]).sum() * 10 / 4
    torch.testing.assert_close(record.log_density, expected)
    with pytest.raises(MissingNameError, match=r"none for the site 'data'"):
        log_density(model, {}, {}, y)


def test_factors_masks_scales_and_deterministic_sites(key: random.Key) -> None:
    def model() -> None:
        pyro.factor("penalty", torch.tensor(-2.0))
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * z)
        with poutine.scale(scale=3.0), pyro.plate("p", 2):
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=torch.zeros(2))
        with poutine.mask(mask=torch.tensor([True, False])), pyro.plate("q", 2):
            pyro.sample("b", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    _, record = trace(model, {}, key)
    unit = dist.Normal(0.0, 1.0).log_prob(torch.zeros(()))
    torch.testing.assert_close(record.log_densities["penalty"], torch.tensor(-2.0))
    torch.testing.assert_close(record.log_densities["a"], (3 * unit).expand(2))
    torch.testing.assert_close(record.log_densities["b"], torch.stack([unit, torch.zeros(())]))
    assert torch.equal(record.deterministic["twice"], 2 * record.latents["z"])
    assert record.log_densities["twice"].sum() == 0.0
    assert torch.equal(log_density(model, {}, record.latents), record.log_density)


def test_constrain_and_unconstrain_are_inverse(key: random.Key) -> None:
    model = regression()
    params = {"linear.scale": torch.tensor(0.7)}
    back = unconstrain(model, constrain(model, params))
    torch.testing.assert_close(back, params)
    with pytest.raises(UnknownNameError, match=r"no parameter 'linear\.scael'.*'linear\.scale'"):
        constrain(model, {"linear.scael": torch.tensor(0.0)})
    with pytest.raises(SupportError, match=r"'linear\.scale' .*does not satisfy its constraint"):
        unconstrain(model, {"linear.scale": torch.tensor(-1.0)})


# Parameters that do not fit


def test_a_missing_parameter(key: random.Key) -> None:
    with pytest.raises(
        MissingNameError, match=r"have no 'linear\.scale'.*mean 'linear\.scael'.*init\(model, key\)"
    ):
        apply(regression(), {"linear.scael": torch.zeros(())}, key, torch.ones(2, 3))


def test_an_unknown_parameter(key: random.Key) -> None:
    params = {"linear.scale": torch.zeros(()), "linear.scael": torch.zeros(())}
    with pytest.raises(UnknownNameError, match=r"'linear\.scael'.*mean 'linear\.scale'"):
        apply(regression(), params, key, torch.ones(2, 3))


def test_a_parameter_of_another_shape(key: random.Key) -> None:
    params = {"linear.scale": torch.zeros(2)}
    with pytest.raises(ShapeError, match=r"'linear\.scale' has the shape \[2\].*\[\].*vmap"):
        apply(regression(), params, key, torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_a_parameter_of_another_dtype(key: random.Key, dtype: torch.dtype) -> None:
    params = {"linear.scale": torch.zeros((), dtype=dtype)}
    with pytest.raises(DtypeError, match=r"'linear\.scale' is .*float32.*\.to\(torch\.float32\)"):
        apply(regression(), params, key, torch.ones(2, 3))


def test_a_parameter_that_is_no_tensor(key: random.Key) -> None:
    with pytest.raises(DtypeError, match=r"'linear\.scale' is 1\.0, which is no Tensor"):
        apply(regression(), {"linear.scale": 1.0}, key, torch.ones(2, 3))  # type: ignore[dict-item]  # pyright: ignore


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_parameter_that_is_not_finite(key: random.Key, bad: float) -> None:
    params = {"linear.scale": torch.tensor(bad)}
    with pytest.raises(SupportError, match=r"'linear\.scale' \(float32\[\]\) is not finite"):
        apply(regression(), params, key, torch.ones(2, 3))


# Values that do not fit


def _values() -> dict[str, Tensor]:
    return {
        "linear.weight": torch.tensor([[0.5, -0.5, 0.1]]),
        "linear.bias": torch.tensor(0.2),
        "sigma": torch.tensor(0.5),
    }


def _density_at(**changes: Tensor | None) -> Tensor:
    model, (x, y) = regression(), regression_data()
    named = {name.replace("_", "."): value for name, value in changes.items()}
    values = {n: v for n, v in (_values() | named).items() if v is not None}
    return log_density(model, init(model, random.key(0)), values, x, y)


def test_values_that_miss_a_site() -> None:
    with pytest.raises(MissingNameError, match=r"none for the site 'linear\.bias'.*latents"):
        _density_at(linear_bias=None)


def test_values_that_name_no_site() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'linear\.bais', which names no site.*'linear\.bias'"
    ):
        _density_at(linear_bais=torch.zeros(()))


def test_values_that_name_an_observed_site() -> None:
    with pytest.raises(UnknownNameError, match=r"'obs', but that site is observed.*Drop it"):
        _density_at(obs=torch.zeros(20))


def test_values_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"'linear\.weight' is float32\[3\].*exactly \[1, 3\]"):
        _density_at(linear_weight=torch.zeros(3))


def test_values_outside_the_support() -> None:
    with pytest.raises(SupportError, match=r"'sigma' \(float32\[\], from -1 to -1\) lies outside"):
        _density_at(sigma=torch.tensor(-1.0))


def test_a_value_that_is_no_tensor() -> None:
    with pytest.raises(DtypeError, match=r"value of the site 'sigma' is 1\.0"):
        _density_at(sigma=1.0)  # type: ignore[arg-type]  # pyright: ignore


# Observed values


@pytest.mark.parametrize("shape", [(20, 1), (1,), (), (21,)])
def test_an_observed_value_that_would_broadcast(key: random.Key, shape: tuple[int, ...]) -> None:
    model, (x, _) = regression(), regression_data()
    with pytest.raises(
        ShapeError, match=r"observed value of the site 'obs' is .*exactly \[20\].*squeeze"
    ):
        trace(model, init(model, key), key, x, torch.zeros(shape))


def test_an_observed_value_that_is_no_tensor(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("obs", dist.Normal(0.0, 1.0), obs=1.0)  # type: ignore[arg-type]  # pyright: ignore

    with pytest.raises(DtypeError, match=r"observed value of the site 'obs' is 1\.0"):
        apply(model, {}, key)


def test_a_conditioned_value_of_another_shape(key: random.Key) -> None:
    model = poutine.condition(regression(), data={"sigma": torch.ones(1)})
    with pytest.raises(ShapeError, match=r"'sigma' is float32\[1\].*exactly \[\]"):
        apply(model, init(regression(), key), key, torch.ones(2, 3))


# Names and keys


def test_two_sites_of_one_name(key: random.Key) -> None:
    def model() -> None:
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(DuplicateSiteError, match=r"Two sites of this run are named 'z'"):
        apply(model, {}, key)


def test_a_site_with_the_name_of_a_field(key: random.Key) -> None:
    class Model(Module):
        z = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self) -> Tensor:
            return self.z + pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(DuplicateSiteError, match=r"named 'z'"):
        apply(Model(), {}, key)


@pytest.mark.parametrize("wrong", [0, torch.zeros(2), torch.Generator()])
def test_a_key_that_is_no_key(wrong: object) -> None:
    with pytest.raises(KeyTypeError, match=r"random\.key"):
        apply(regression(), {"linear.scale": torch.zeros(())}, wrong, torch.ones(2, 3))  # type: ignore[arg-type]  # pyright: ignore


def test_a_stack_of_keys(key: random.Key) -> None:
    keys = random.split(key, 3)
    with pytest.raises(KeyTypeError, match=r"vmap"):
        apply(regression(), {"linear.scale": torch.zeros(())}, keys, torch.ones(2, 3))


def test_a_key_used_twice(key: random.Key) -> None:
    model = regression()
    params = init(model, key)
    with random.forbid_reuse():
        apply(model, params, key, torch.ones(2, 3))
        with pytest.raises(KeyReuseError, match=r"apply"):
            trace(model, params, key, torch.ones(2, 3))


# Inputs stay as they are


def test_an_argument_changed_in_place(key: random.Key) -> None:
    class Model(Module):
        def forward(self, x: Tensor, more: dict[str, Tensor]) -> Tensor:
            return more["y"].add_(1.0) + x

    with pytest.raises(MutationError, match=r"changed argument 1 \(float32\[2\]\) in place.*add_"):
        apply(Model(), {}, key, torch.zeros(2), {"y": torch.zeros(2)})


def test_a_parameter_changed_in_place(key: random.Key) -> None:
    class Model(Module):
        w = PyroParam(torch.zeros(2))

        def forward(self) -> Tensor:
            return self.w.mul_(2.0)

    with pytest.raises(MutationError, match=r"changed params\['w'\]"):
        apply(Model(), init(Model(), key), key)


def test_a_keyword_argument_changed_in_place(key: random.Key) -> None:
    def model(*, x: Tensor) -> Tensor:
        return x.zero_()

    with pytest.raises(MutationError, match=r"changed argument 'x'"):
        apply(model, {}, key, x=torch.ones(2))


def test_torch_modules_are_not_touched(key: random.Key) -> None:
    class Model(Module):
        net: nn.Linear

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x)
            return out

    model = Model(nn.Linear(2, 1))
    before = [p.clone() for p in model.net.parameters()]
    params = {name: torch.ones_like(value) for name, value in init(model, key).items()}
    assert torch.equal(apply(model, params, key, torch.ones(1, 2)), torch.full((1, 1), 3.0))
    assert all(map(torch.equal, before, model.net.parameters()))


# What is no model, and what is no dict of parameters


def test_a_class_in_place_of_an_instance(key: random.Key) -> None:
    with pytest.raises(DeclarationError, match=r"the class BayesianRegression.*\(\.\.\.\)"):
        init(BayesianRegression, key)


@pytest.mark.parametrize("model", [3, None, "model"])
def test_what_is_no_model(key: random.Key, model: object) -> None:
    with pytest.raises(DeclarationError, match=r"The model is .*, which cannot be called"):
        apply(model, {}, key)  # type: ignore[arg-type]  # pyright: ignore


def test_params_and_key_the_wrong_way_round(key: random.Key) -> None:
    params = init(regression(), key)
    with pytest.raises(DtypeError, match=r"params are int64\[2\].*\(model, params, key"):
        apply(regression(), key, params, torch.ones(2, 3))  # type: ignore[arg-type]  # pyright: ignore


def test_a_shape_error_after_a_first_read_in_a_plate_says_so(key: random.Key) -> None:
    class Model(Module):
        w = PyroSample(dist.Normal(torch.zeros(3), 1.0).to_event(1), local=True)

        def forward(self, x: Tensor) -> Tensor:
            with pyro.plate("rows", len(x)):
                return pyro.sample("y", dist.Normal(x @ self.w, 1.0))

    with pytest.raises(RuntimeError) as caught:
        apply(Model(), {}, key, torch.ones(4, 3))
    (note,) = caught.value.__notes__
    assert "'w' was first read inside the plate 'rows'" in note
    assert "[4, 3]" in note
    assert "before the plate, or declare it with local=False" in note
