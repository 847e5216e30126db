"""Optimisers in SVI: by pattern, schedules, clipping, frozen parameters, and what is refused."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor
from torchopt.clip import clip_grad_norm as clip_by_torchopt
from torchopt.schedule import linear_schedule

from models import regression, regression_data
from purepyro import Ensemble, jit, random
from purepyro._errors import (
    DeclarationError,
    MissingNameError,
    ShapeError,
    UnknownNameError,
    VmapError,
)
from purepyro.infer import SVI, AutoNormal, Optimizer, clip_grad_norm, scale

Y = torch.tensor([1.0, 2.0, 6.0])


def model(y: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a + b.sum(), 1.0), obs=y)


GUIDE = AutoNormal(model)


class Broken:
    """Plain gradient descent, but for one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __repr__(self) -> str:
        return "Broken()"

    def init(self, params: dict[str, Tensor]) -> Any:  # noqa: ANN401
        return {"count": torch.zeros(())}

    def update(
        self,
        gradients: dict[str, Tensor],
        state: Any,  # noqa: ANN401
        *,
        params: dict[str, Tensor],
    ) -> Any:  # noqa: ANN401
        updates: dict[str, Tensor] = {n: -0.1 * g for n, g in gradients.items()}
        if self.fault == "names":
            updates.popitem()
        if self.fault == "kind":
            return list(updates.values()), state
        if self.fault == "shape":
            updates["locs.a"] = updates["locs.a"].expand(3)
        if self.fault == "dtype":
            updates["locs.a"] = updates["locs.a"].double()
        if self.fault == "state":
            return updates, {"count": torch.zeros(1), "more": torch.zeros(())}
        return updates, state


# Per parameter


def test_each_parameter_has_the_first_optimiser_that_matches(key: random.Key) -> None:
    still, fast = torchopt.sgd(0.0), torchopt.adam(0.1)
    svi = SVI(model, GUIDE, {"scales.*": still, "locs.b": still, "*": fast})
    state = svi.init(key, Y)
    new, _ = svi.step(state, Y)
    moved = {name for name in state.params if not torch.equal(new.params[name], state.params[name])}
    assert moved == {"locs.a"}
    assert set(state.opt_state) == {"scales.*", "locs.b", "*"}


def test_one_optimiser_for_all_equals_the_mapping(key: random.Key) -> None:
    one = SVI(model, GUIDE, torchopt.adam(0.1)).run(key, 5, Y)
    many = SVI(model, GUIDE, {"locs.*": torchopt.adam(0.1), "*": torchopt.adam(0.1)}).run(key, 5, Y)
    torch.testing.assert_close(one.state.params, many.state.params, rtol=0, atol=0)


def test_a_mapping_of_optimisers_under_vmap(key: random.Key) -> None:
    svi = SVI(model, GUIDE, {"locs.*": torchopt.adam(0.1), "*": torchopt.sgd(0.1)})
    keys = random.split(key, 3)

    def two_steps(key: Tensor) -> dict[str, Tensor]:
        state = svi.init(random.Key(key), Y)
        return svi.step(svi.step(state, Y)[0], Y)[0].params

    batched = torch.vmap(two_steps)(keys)
    for i, each in enumerate(keys):
        alone = two_steps(each)
        torch.testing.assert_close({n: v[i] for n, v in batched.items()}, alone)


def test_a_pattern_of_optimisers_that_matches_nothing(key: random.Key) -> None:
    svi = SVI(model, GUIDE, {"scale.*": torchopt.sgd(0.1), "*": torchopt.sgd(0.1)})
    with pytest.raises(UnknownNameError, match=r"mapping of optimisers.*'scale\.\*'.*'scales\."):
        svi.init(key, Y)


def test_a_pattern_of_optimisers_behind_a_wider_one(key: random.Key) -> None:
    svi = SVI(model, GUIDE, {"*": torchopt.sgd(0.1), "scales.*": torchopt.sgd(0.1)})
    with pytest.raises(UnknownNameError, match=r"'scales\.\*'.*earlier pattern.*special patterns"):
        svi.init(key, Y)


def test_a_parameter_without_an_optimiser(key: random.Key) -> None:
    svi = SVI(model, GUIDE, {"locs.*": torchopt.sgd(0.1)})
    with pytest.raises(MissingNameError, match=r"\['scales\.a', 'scales\.b'\].*last pattern '\*'"):
        svi.init(key, Y)


def test_an_optimiser_in_a_mapping_that_is_none() -> None:
    wrong: Any = {"*": torch.optim.Adam}
    with pytest.raises(DeclarationError, match=r"no \(init, update\) pair.*torchopt"):
        SVI(model, GUIDE, wrong)


# Schedules and clipping


def test_a_schedule_of_torchopt(key: random.Key) -> None:
    """Linear from .1 to 0 in 4 steps: the parameters stand still from then on."""
    rate = linear_schedule(0.1, 0.0, 4)
    svi = SVI(model, GUIDE, torchopt.sgd(rate))
    state = svi.run(key, 3, Y).state
    assert not torch.equal(svi.step(state, Y)[0].params["locs.a"], state.params["locs.a"])
    state, _ = svi.step(state, Y)
    torch.testing.assert_close(svi.step(state, Y)[0].params, state.params, rtol=0, atol=0)


def test_clipping_agrees_with_torchopt(key: random.Key) -> None:
    ours = torchopt.chain(clip_grad_norm(0.5), torchopt.sgd(0.1))
    theirs = torchopt.chain(clip_by_torchopt(0.5), torchopt.sgd(0.1))
    a, b = (SVI(model, GUIDE, optim).run(key, 5, Y) for optim in (ours, theirs))
    torch.testing.assert_close(a.state.params, b.state.params)
    torch.testing.assert_close(a.losses, b.losses)


def test_clipping_bounds_a_step_and_leaves_short_ones(key: random.Key) -> None:
    optim = clip_grad_norm(1.0)
    small = {"a": torch.tensor([0.3, 0.4]), "b": torch.tensor(0.0, dtype=torch.float64)}
    updates, _ = optim.update(small, optim.init(small))
    torch.testing.assert_close(updates, small)
    large = {"a": torch.tensor([30.0, 40.0]), "b": torch.tensor(0.0, dtype=torch.float64)}
    updates, _ = optim.update(large, optim.init(large))
    torch.testing.assert_close(updates, {"a": torch.tensor([0.6, 0.8]), "b": large["b"]})


def test_clipping_under_vmap_is_by_member(key: random.Key) -> None:
    optim = torchopt.chain(clip_grad_norm(0.5), torchopt.sgd(0.1))
    svi, keys = SVI(model, GUIDE, optim), random.split(key, 3)

    def step(key: Tensor) -> dict[str, Tensor]:
        return svi.step(svi.init(random.Key(key), Y), Y)[0].params

    batched = torch.vmap(step)(keys)
    for i, each in enumerate(keys):
        torch.testing.assert_close({n: v[i] for n, v in batched.items()}, step(each))


def test_a_clipping_that_lets_nothing_through() -> None:
    with pytest.raises(DeclarationError, match=r"max_norm=0.*positive"):
        clip_grad_norm(0)


# Frozen


def test_frozen_parameters_stay_bit_for_bit(key: random.Key) -> None:
    regress, (x, y) = regression(), regression_data()
    svi = SVI(regress, AutoNormal(regress), torchopt.adam(0.1), frozen=("scales.*", "linear.scale"))
    start = svi.init(key, x, y)
    state = svi.run_from(start, 10, x, y).state
    frozen = {name for name in start.params if name.startswith(("scales.", "linear."))}
    assert len(frozen) == 4
    for name, value in start.params.items():
        assert torch.equal(state.params[name], value) == (name in frozen), name
    assert list(state.params) == list(start.params)
    assert len(start.opt_state[0].mu) == len(start.params) - 4


def test_frozen_parameters_under_vmap(key: random.Key) -> None:
    svi = SVI(model, GUIDE, torchopt.adam(0.1), frozen="scales.*")
    states = torch.vmap(lambda k: svi.init(random.Key(k), Y))(random.split(key, 3))
    after, _ = torch.vmap(svi.step, in_dims=(0, None))(states, Y)
    assert torch.equal(after.params["scales.b"], states.params["scales.b"])
    assert not torch.equal(after.params["locs.b"], states.params["locs.b"])


def test_all_parameters_frozen(key: random.Key) -> None:
    state, losses = SVI(model, GUIDE, torchopt.adam(0.1), frozen="*").run(key, 3, Y)
    torch.testing.assert_close(state.params, SVI(model, GUIDE, torchopt.adam(0.1)).init(key, Y)[0])
    assert losses.isfinite().all()


def test_a_frozen_pattern_that_matches_nothing(key: random.Key) -> None:
    svi = SVI(model, GUIDE, torchopt.adam(0.1), frozen="loc.a")
    with pytest.raises(UnknownNameError, match=r"frozen.*'loc\.a'.*Did you mean 'locs\.a'"):
        svi.init(key, Y)


# Optimisers that break the tree


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (
            "names",
            r"Broken\(\) returned updates for \['locs.a', 'locs.b', 'scales.a'\].*one update",
        ),
        ("kind", r"returned updates for \[tensor"),
        ("shape", r"changes the structure.*locs.a: float32\[\] became float32\[3\]"),
        ("dtype", r"changes the structure.*locs.a: float32\[\] became float64\[\]"),
        ("state", r"count: float32\[\] became float32\[1\].*more: 'none' became float32\[\]"),
    ],
)
def test_an_optimiser_that_returns_another_tree(key: random.Key, fault: str, match: str) -> None:
    optim: Optimizer = Broken(fault)
    with pytest.raises(DeclarationError, match=match):
        SVI(model, GUIDE, optim).init(key, Y)


def test_an_optimiser_of_ones_own(key: random.Key) -> None:
    _, losses = SVI(model, GUIDE, Broken("")).run(key, 20, Y)
    assert losses[-5:].mean() < losses[:5].mean()


@pytest.mark.parametrize("rate", [0.05, torch.tensor(0.05), torch.tensor(0.05).double()])
def test_a_scaled_optimiser_is_one_of_that_rate(rate: float | Tensor) -> None:
    scaled = SVI(model, GUIDE, torchopt.chain(torchopt.adam(1.0), scale(rate)))
    plain = SVI(model, GUIDE, torchopt.adam(0.05))
    ours, theirs = (svi.run(random.key(0), 20, Y).state.params for svi in (scaled, plain))
    for name, value in theirs.items():
        assert ours[name].dtype is value.dtype
        torch.testing.assert_close(ours[name], value)


def test_a_factor_of_several_numbers() -> None:
    with pytest.raises(ShapeError, match=r"factor float32\[3\].*Ensemble\(make_svi"):
        scale(torch.ones(3))


# Every optimiser of torchopt

MAKERS: dict[str, Any] = {
    "adadelta": torchopt.adadelta,
    "adagrad": torchopt.adagrad,
    "adam": torchopt.adam,
    "adamax": torchopt.adamax,
    "adamw": torchopt.adamw,
    "radam": torchopt.radam,
    "rmsprop": torchopt.rmsprop,
    "sgd": torchopt.sgd,
}
RATES = {"number": 0.1, "schedule": linear_schedule(0.1, 0.01, 10, 0)}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_fit_is_that_of_torchopt(name: str, rate: str, key: random.Key) -> None:
    make = MAKERS[name]
    optim, svi = make(RATES[rate]), SVI(model, GUIDE, make(RATES[rate]))
    state = svi.init(key, Y)
    params, own = state.params, optim.init(state.params)
    for _ in range(8):  # radam changes its rule at the sixth step
        _, gradients, _ = svi._gradients(state, Y)
        state, _ = svi.step(state, Y)
        updates, own = optim.update(gradients, own, params=params, inplace=False)
        params = {key: params[key] + updates[key] for key in params}
    torch.testing.assert_close(state.params, params)
    assert all(value.dtype is torch.float32 for value in state.params.values())


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_members_under_vmap_and_in_a_loop(name: str, chained: bool, key: random.Key) -> None:
    make = MAKERS[name]
    optim = torchopt.chain(clip_grad_norm(1.0), make(0.1), scale(0.5)) if chained else make(0.1)
    svi, keys = SVI(model, GUIDE, optim), random.split(key, 2)
    loop = Ensemble(svi, map="loop").run(keys, 8, Y).state
    if name == "radam":  # it branches on how many steps it took
        with pytest.raises(VmapError, match=r'Ensemble\(\.\.\., map="loop"\)'):
            Ensemble(svi).run(keys, 8, Y)
        return
    mapped = Ensemble(svi).run(keys, 8, Y).state
    torch.testing.assert_close(mapped.svi.params, loop.svi.params)
    alone = svi.run(Ensemble(svi).member(loop, 1).key, 8, Y).state
    torch.testing.assert_close(loop.svi.params["locs.a"][1], alone.params["locs.a"])


def test_a_count_in_a_mapping_of_optimisers(key: random.Key) -> None:
    mapping = SVI(model, GUIDE, {"locs.*": torchopt.adamax(0.1), "*": torchopt.adamax(0.1)})
    one = SVI(model, GUIDE, torchopt.adamax(0.1))
    ours, theirs = (svi.run(key, 8, Y).state.params for svi in (mapping, one))
    torch.testing.assert_close(ours, theirs)


def test_a_count_of_ones_own(key: random.Key) -> None:
    class Slower:
        def init(self, params: dict[str, Tensor]) -> int:
            return 1

        def update(
            self, gradients: dict[str, Tensor], state: int, *, params: dict[str, Tensor]
        ) -> tuple[dict[str, Tensor], int]:
            return {name: -0.1 * value / state for name, value in gradients.items()}, state + 1

    state = SVI(model, GUIDE, Slower()).run(key, 3, Y).state
    assert float(state.opt_state) == 4.0
    assert all(value.dtype is torch.float32 for value in state.params.values())


@pytest.mark.compiled
@pytest.mark.slow
def test_a_count_in_a_compiled_run(key: random.Key) -> None:
    svi = SVI(model, GUIDE, torchopt.adamax(0.1), compiled=True)
    eager = SVI(model, GUIDE, torchopt.adamax(0.1), compiled=False)
    ours, theirs = (each.run(key, 20, Y).state.params for each in (svi, eager))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    step = jit(svi.step)
    state = svi.init(key, Y)
    for _ in range(3):
        state, _ = step(state, Y)
    assert int(state.step) == 3
