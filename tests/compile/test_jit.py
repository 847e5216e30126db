"""The contract of jit, on traced graphs; what the compiler makes of them is in test_compiled.py."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import attrs
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from pyro.distributions import is_validation_enabled
from torch import Tensor, nn
from torch._higher_order_ops.cond import cond
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.fx.experimental.proxy_tensor import make_fx

from models import regression, regression_data
from purepyro import Module, PyroParam, apply, disable_jit, init, jit, random, trace
from purepyro._compile._jit import Jitted
from purepyro._compile.guards import _access_paths
from purepyro._errors import (
    DeclarationError,
    GradientError,
    MutationError,
    PurepyroError,
    SpecializationError,
    TraceError,
)
from purepyro.infer import SVI, AutoNormal

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("uncompiled")]

ONES, TWOS = torch.ones(3), torch.full((3,), 2.0)


def equal(found: Tensor, *numbers: float) -> bool:
    return found.flatten().tolist() == list(numbers)


# Functions and what they take and give


class Pair(NamedTuple):
    first: Tensor
    second: tuple[Tensor, None]


def test_trees_in_and_out() -> None:
    @jit
    def fn(pair: Pair, parts: dict[str, list[Tensor]], *, scale: float = 1.0) -> dict[str, object]:
        total = pair.first + pair.second[0] * scale
        return {
            "pair": Pair(total, (parts["a"][0], None)),
            "n": 3,
            "text": "s",
            "size": total.shape,
        }

    for scale in (1.0, 2.0):
        found = fn(Pair(ONES, (TWOS, None)), {"a": [ONES]}, scale=scale)
        assert isinstance(found["pair"], Pair)
        assert equal(found["pair"].first, *[1 + 2 * scale] * 3)
        assert found["pair"].second[1] is None
        assert (found["n"], found["text"], found["size"]) == (3, "s", torch.Size([3]))
    assert fn.cache_info() == (0, 2, 32, 2)


def test_nothing_in_nothing_out() -> None:
    assert equal(jit(lambda: torch.ones(2))(), 1.0, 1.0)
    assert jit(lambda n: n + 1)(3) == 4
    assert jit(lambda: None)() is None
    assert equal(jit(lambda x: x.sum())(torch.zeros(0, 3)), 0.0)
    assert equal(jit(lambda x: x + 1)(torch.tensor(1.0)), 2.0)
    assert jit(lambda x: x * x)(torch.tensor([1j])).item() == -1


def test_a_keyword_and_a_position_are_two_kinds() -> None:
    fn = jit(lambda x, y=1.0: x + y)
    assert equal(fn(ONES, 1.0), *[2.0] * 3)
    assert equal(fn(ONES, y=1.0), *[2.0] * 3)
    assert equal(fn(x=ONES, y=2.0), *[3.0] * 3)
    assert fn.cache_info().currsize == 3


def test_a_record_of_a_run_is_a_result(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    fn = jit(lambda params, key, x, y: trace(model, params, key, x, y))
    fn(params, random.key(1), x, y)
    mean, record = fn(params, key, x, y)
    wanted_mean, wanted = trace(model, params, key, x, y)
    torch.testing.assert_close(mean, wanted_mean)
    torch.testing.assert_close(record.values, wanted.values)
    torch.testing.assert_close(record.log_density, wanted.log_density)
    assert fn.cache_info().misses == 1


def test_models_methods_and_steps(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    state, step = svi.init(key, x, y), jit(svi.step)
    for _ in range(3):
        wanted, loss = svi.step(state, x, y)
        state, found = step(state, x, y)
        torch.testing.assert_close(found, loss)
        torch.testing.assert_close(state.params, wanted.params)
    assert step.cache_info() == (2, 1, 32, 1)
    net = nn.Linear(3, 1)
    with torch.no_grad():
        torch.testing.assert_close(jit(net)(x), net(x))
    assert equal(jit(partial(torch.add, ONES, alpha=2))(TWOS), *[5.0] * 3)


def test_transforms_within(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    keys = random.split(key, 3)
    start = torch.vmap(lambda key: svi.init(random.Key(key), x, y))(keys)
    many = torch.vmap(svi.step, in_dims=(0, None, None))
    found, wanted = jit(many)(start, x, y), many(start, x, y)
    torch.testing.assert_close(found[1], wanted[1])
    torch.testing.assert_close(found[0].params, wanted[0].params)
    slope = torch.func.grad(lambda x: (x**3).sum())
    assert equal(jit(slope)(TWOS), *[12.0] * 3)
    assert equal(jit(torch.vmap(torch.func.grad(lambda x: x**3)))(TWOS), *[12.0] * 3)


def test_within_transforms_it_is_the_function() -> None:
    cube = jit(lambda x: (x**3).sum())
    assert equal(torch.func.grad(cube)(TWOS), *[12.0] * 3)
    assert equal(torch.vmap(cube)(TWOS), *[8.0] * 3)
    assert equal(jit(lambda x: cube(x) + 1)(TWOS), 25.0)
    assert equal(make_fx(cube)(TWOS)(ONES), 3.0)
    assert cube.cache_info() == (0, 0, 32, 0)


class Scaled(Module):
    scale = PyroParam(torch.tensor(2.0))
    shift: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift

    @jit
    def plain(self, x: Tensor) -> Tensor:
        return x + self.shift


class Plain:
    factor = 2.0

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.calls = 0

    @jit
    def decorated(self, x: Tensor) -> Tensor:
        return x * self.weight * self.factor

    def method(self, x: Tensor) -> Tensor:
        return self._inner(x) * self.factor

    def _inner(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_decorated_methods() -> None:
    """Each instance has its graph, and the class shares the cache."""
    one, two = Plain(ONES), Plain(TWOS)
    for _ in range(2):
        assert equal(one.decorated(TWOS), *[4.0] * 3)
        assert equal(two.decorated(TWOS), *[8.0] * 3)
    assert Plain.decorated.cache_info() == (2, 2, 32, 2)
    assert equal(Scaled(shift=1.0).plain(ONES), *[2.0] * 3)
    assert equal(Scaled(shift=3.0).plain(ONES), *[4.0] * 3)
    model = Scaled()
    fn = jit(lambda params, key, x: apply(model, params, key, x))
    assert equal(fn({"scale": torch.tensor(5.0)}, random.key(0), ONES), *[6.0] * 3)


# What is static


def test_numbers_of_python_are_baked_by_make_fx_but_not_here() -> None:
    def fn(x: Tensor, n: float) -> Tensor:
        return x * n

    assert equal(make_fx(fn)(ONES, 4)(ONES, 7), *[4.0] * 3)  # the trap
    jitted = jit(fn)
    for n in (4, 7, 4.0, True, float("nan"), -0.0):
        torch.testing.assert_close(jitted(ONES, n), fn(ONES, n), equal_nan=True)
    jitted(ONES, float("nan"))
    assert jitted.cache_info() == (1, 6, 32, 6)
    assert jitted(ONES, -0.0).signbit().all()


def test_other_tensors_are_other_kinds() -> None:
    fn = jit(lambda x: x * 2)
    wide = torch.ones(3, 4)
    kinds = [ONES, ONES.double(), ONES.long(), torch.ones(4), wide, wide.mT.contiguous().mT]
    for x in kinds:
        found = fn(x)
        assert found.dtype == x.dtype
        assert torch.equal(found, x * 2)
    assert fn.cache_info().currsize == len(kinds)
    for x in kinds:
        fn(x.clone(memory_format=torch.preserve_format))
    assert fn.cache_info() == (len(kinds), len(kinds), 32, len(kinds))


def test_global_settings_are_part_of_the_kind() -> None:
    fn = jit(lambda x: torch.zeros(1) + x @ x)
    x = torch.ones(2, 2)
    fn(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fn(x)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert fn(x).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert fn(x).dtype == torch.float32
    assert fn.cache_info() == (1, 3, 32, 3)


def test_one_tensor_twice() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        return x + 10 * y

    trap = make_fx(fn, tracing_mode="fake")(ONES, ONES)
    assert equal(trap(ONES, TWOS), *[11.0] * 3) or equal(trap(ONES, TWOS), *[22.0] * 3)
    jitted = jit(fn)
    assert equal(jitted(ONES, ONES), *[11.0] * 3)
    assert equal(jitted(ONES, ONES), *[11.0] * 3)
    assert equal(jitted(ONES, TWOS), *[21.0] * 3)
    assert jitted.cache_info() == (2, 1, 32, 1)


@pytest.mark.parametrize("static", [np.ones(3), {1, 2}, bytearray(b"a")], ids=str)
def test_what_cannot_be_hashed_is_refused(static: object) -> None:
    fn = jit(lambda x, options: x)
    with pytest.raises(
        TraceError, match=r"argument 1 at key is .* must be hashable\. Pass a tensor"
    ):
        fn(ONES, {"key": static})
    with pytest.raises(TraceError, match="argument 'options' is"):
        fn(ONES, options=static)


def test_slices_and_frozen_objects_are_static() -> None:
    @attrs.frozen
    class Settings:
        scale: float

    fn = jit(lambda x, part, settings: x[part] * settings.scale)
    assert equal(fn(ONES, slice(0, 2), Settings(2.0)), 2.0, 2.0)
    assert equal(fn(ONES, slice(0, 1), Settings(2.0)), 2.0)
    assert equal(fn(ONES, slice(0, 1), Settings(3.0)), 3.0)
    assert equal(fn(ONES, slice(0, 1), Settings(3.0)), 3.0)
    assert fn.cache_info().currsize == 3


def test_frozen_objects_that_hold_tensors() -> None:
    """Two of them cannot be compared, so each has its graph."""

    @attrs.frozen
    class Settings:
        weight: Tensor

        def __hash__(self) -> int:
            return 1

    fn = jit(lambda x, settings: x * settings.weight)
    assert equal(fn(ONES, Settings(ONES)), *[1.0] * 3)
    assert equal(fn(ONES, Settings(TWOS)), *[2.0] * 3)


# What is captured


def test_a_captured_tensor_is_a_constant_of_make_fx_but_not_here() -> None:
    weight = torch.ones(3)

    def fn(x: Tensor) -> Tensor:
        return x * weight

    jitted = jit(fn)
    trap = make_fx(fn)(ONES)
    jitted(ONES)
    weight = TWOS  # in place it would be seen by both
    assert equal(trap(ONES), *[1.0] * 3)
    assert equal(jitted(ONES), *[2.0] * 3)
    assert jitted.cache_info().misses == 1


def test_captured_tensors_that_change() -> None:
    cell, owner, items, table = torch.ones(3), Plain(torch.ones(3)), [torch.ones(3)], {"a": ONES}
    fn = jit(lambda x: x * cell + owner.weight + items[0] + table["a"])
    assert equal(fn(ONES), *[4.0] * 3)
    cell.fill_(2.0)
    assert equal(fn(ONES), *[5.0] * 3)
    cell = torch.full((3,), 3.0)
    assert equal(fn(ONES), *[6.0] * 3)
    owner.weight, items[0], table["a"] = TWOS, TWOS, TWOS
    assert equal(fn(ONES), *[9.0] * 3)
    owner = Plain(torch.full((3,), 5.0))
    assert equal(fn(ONES), *[12.0] * 3)
    assert fn.cache_info() == (4, 1, 32, 1)
    table["a"] = torch.ones(1)
    assert equal(fn(ONES), *[11.0] * 3)
    cell = cell.double()
    assert fn(ONES).dtype == torch.float64
    assert fn.cache_info() == (4, 3, 32, 3)


def test_one_captured_tensor_under_two_names() -> None:
    one = two = torch.ones(3)
    fn = jit(lambda x: x + one + 10 * two)
    assert equal(fn(ONES), *[12.0] * 3)
    two = TWOS
    assert equal(fn(ONES), *[22.0] * 3)
    one = TWOS
    assert equal(fn(ONES), *[23.0] * 3)


def test_what_else_is_captured() -> None:
    """Numbers, strings, functions, lengths, types: another one is another graph."""
    number, owner, items, table = 2.0, Plain(ONES), [ONES], {"scale": 2.0}
    shape, dtype, activation = (1, 3), torch.float32, torch.relu

    def fn(x: Tensor) -> Tensor:
        total = sum(items, x * number * table["scale"]) * owner.factor
        return activation(total).reshape(shape).to(dtype)

    jitted = jit(fn)

    def agrees() -> bool:
        before = jitted.cache_info().misses
        same = torch.equal(jitted(ONES), fn(ONES)) and jitted(ONES).dtype == dtype
        return same and jitted.cache_info().misses == before + 1

    assert agrees()
    number = 3.0
    assert agrees()
    owner.factor = 4.0
    assert agrees()
    items.append(TWOS)
    assert agrees()
    table["scale"] = 5.0
    assert agrees()
    shape = (3, 1)
    assert agrees()
    assert jitted(ONES).shape == (3, 1)
    dtype = torch.float64
    assert agrees()
    activation = torch.square
    assert agrees()
    owner.calls += 1  # which the function does not read
    jitted(ONES)
    assert jitted.cache_info().misses == 8


class Constants:
    weight = torch.ones(3)
    scale = 2.0


WEIGHT, SCALE = torch.ones(3), 2.0


def helper(x: Tensor) -> Tensor:
    return x * WEIGHT * Constants.weight * Constants.scale


def test_globals_also_of_inner_functions_and_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fn(x: Tensor) -> Tensor:
        found: Tensor = torch.func.grad(lambda y: (helper(y) * SCALE).sum())(x)
        return found

    jitted = jit(fn)
    assert equal(jitted(ONES), *[4.0] * 3)
    monkeypatch.setitem(globals(), "WEIGHT", TWOS)
    assert equal(jitted(ONES), *[8.0] * 3)
    monkeypatch.setattr(Constants, "weight", TWOS)
    assert equal(jitted(ONES), *[16.0] * 3)
    assert jitted.cache_info().misses == 1
    monkeypatch.setattr(Constants, "scale", 3.0)
    assert equal(jitted(ONES), *[24.0] * 3)
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert equal(jitted(ONES), *[12.0] * 3)
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert equal(jitted(ONES), *[1.0] * 3)


def test_what_a_jitted_function_within_captures() -> None:
    weight, scale = ONES, 2.0
    inner = jit(lambda x: x * weight * scale)
    outer = jit(lambda x: inner(x) + 1)
    assert equal(outer(ONES), *[3.0] * 3)
    weight = TWOS
    assert equal(outer(ONES), *[5.0] * 3)
    scale = 3.0
    assert equal(outer(ONES), *[7.0] * 3)


def test_methods_and_class_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Plain(ONES)
    fn = jit(owner.method)
    assert equal(fn(ONES), *[2.0] * 3)
    owner.weight = TWOS
    assert equal(fn(ONES), *[4.0] * 3)
    monkeypatch.setattr(Plain, "factor", 3.0)
    assert equal(fn(ONES), *[6.0] * 3)
    for _ in range(40):
        owner.calls += 1
        fn(ONES)
    assert fn.cache_info().misses == 2


class Layered(Module):
    net: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x) * SCALE
        return pyro.sample("y", dist.Normal(found, 1.0).to_event(2), obs=x)


def test_what_the_model_of_a_step_reads(key: random.Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """A global number and the mode of a layer, below an SVI and a frozen Module."""
    net = nn.BatchNorm1d(3).eval()
    svi = SVI(Layered(net), AutoNormal(Layered(net)), torchopt.adam(0.1))
    x, step = torch.ones(4, 3), jit(svi.step)
    state = svi.init(key, x)
    for _ in range(2):
        torch.testing.assert_close(step(state, x)[1], svi.step(state, x)[1])
    assert step.cache_info().misses == 1
    monkeypatch.setitem(globals(), "SCALE", 5.0)
    torch.testing.assert_close(step(state, x)[1], svi.step(state, x)[1])
    assert step.cache_info().misses == 2
    net.train()
    after, _ = step(state, x)
    assert step.cache_info().misses == 3
    for name, buffer in svi.step(state, x)[0].buffers.items():
        torch.testing.assert_close(after.buffers[name], buffer)
        assert not torch.equal(state.buffers[name], buffer)


def test_a_captured_name_that_is_gone() -> None:
    table = {"a": ONES}
    fn = jit(lambda x: x + table["a"] if "a" in table else x)
    assert equal(fn(ONES), *[2.0] * 3)
    del table["a"]
    assert equal(fn(ONES), *[1.0] * 3)


def test_more_than_can_be_watched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_access_paths, "_LIMIT", 20)
    many = [[i] for i in range(30)]
    with pytest.raises(TraceError, match=r"leads, at `many\[.*`, to more than 20 objects outside"):
        jit(lambda x: x + many[0][0])(ONES)
    assert equal(jit(lambda x, first: x + first)(ONES, many[0][0]), 1.0, 1.0, 1.0)


def test_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.scale = 2.0
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.norm(self.first(x)) * self.scale
            return found

    net, x = Net(), torch.ones(4, 3)
    fn = jit(net)
    with pytest.raises(MutationError, match="a tensor that it finds outside its arguments"):
        fn(x)
    net.eval()
    with pytest.raises(GradientError, match=r"a tensor outside its arguments \(float32.*no_grad"):
        fn(x)
    with torch.no_grad():
        torch.testing.assert_close(fn(x), net(x))
        net.first.weight.add_(1.0)
        torch.testing.assert_close(fn(x), net(x))
        assert fn.cache_info().misses == 1
        net.scale = 3.0
        torch.testing.assert_close(fn(x), net(x))
        net.norm = nn.Identity()  # type: ignore[assignment]
        torch.testing.assert_close(fn(x), net(x))
        net.first = nn.Sequential(nn.Linear(3, 3), nn.Tanh())  # type: ignore[assignment]
        torch.testing.assert_close(fn(x), net(x))
        torch.testing.assert_close(fn(x), net(x))
        assert fn.cache_info().misses == 4


def test_a_captured_tensor_is_not_changed() -> None:
    held = torch.ones(3)

    def fn(x: Tensor) -> Tensor:
        held.add_(x)
        return held

    with pytest.raises(MutationError, match=r"outside its arguments \(float32\[3\]\) in place"):
        jit(fn)(ONES)
    assert equal(held, 1.0, 1.0, 1.0)


# Bad functions


def _mask(x: Tensor) -> Tensor:
    return x[x > 0]


def _branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


DATA_DEPENDENT: dict[str, Callable[[Tensor], object]] = {
    "branch": _branch,
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: x * float(x.sum()),
    "bool": lambda x: bool(x.any()),
    "range": lambda x: sum(x for _ in range(int(x.sum()))),
    "mask": _mask,
    "nonzero": lambda x: x.nonzero(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy().sum(),
    "equal": lambda x: x if torch.equal(x, x) else -x,
    "index": lambda x: [1, 2, 3][x.sum().long()],
}


@pytest.mark.parametrize("fn", DATA_DEPENDENT.values(), ids=DATA_DEPENDENT)
def test_numbers_cannot_be_asked_for(fn: Callable[[Tensor], object]) -> None:
    match = r"test_jit\.py:\d+: `.*`\. While a graph is traced it has none.*Write torch\.where"
    jitted = jit(fn)
    with pytest.raises(TraceError, match=match):
        jitted(ONES)
    assert jitted.cache_info().currsize == 0


def test_the_line_is_that_of_the_branch() -> None:
    with pytest.raises(TraceError, match=r"`return x if x\.sum\(\) > 0 else -x`"):
        jit(lambda x: _branch(x) + 1)(ONES)


def test_draws_need_a_key() -> None:
    draws: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: torch.randn_like(x),
        nn.Dropout(),
        lambda x: x.bernoulli(),
    )
    for fn in draws:
        with pytest.raises(TraceError, match=r"torch's global generator \(aten\..*Draw from a key"):
            jit(fn)(ONES)

    def keyed(key: Tensor, x: Tensor) -> Tensor:
        with random.keyed(random.Key(key)):
            return nn.functional.dropout(x)

    for i in range(3):
        assert torch.equal(jit(keyed)(random.key(i), ONES), keyed(random.key(i), ONES))


def test_checks_of_numbers_are_off_in_a_trace_and_on_after_it() -> None:
    fn = jit(lambda x: dist.Normal(x, 1.0).log_prob(x))
    torch.testing.assert_close(fn(ONES), dist.Normal(ONES, 1.0).log_prob(ONES))
    with pytest.raises(ZeroDivisionError):
        jit(lambda x: x / (1 // 0))(ONES)
    assert is_validation_enabled()
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


WRITES: dict[str, Callable[[Tensor], object]] = {
    "add": lambda x: x.add_(1),
    "item": lambda x: x.__setitem__(0, 5.0),
    "view": lambda x: x.view(-1)[0].fill_(3.0),
    "data": lambda x: x.data.add_(1),
    "resize": lambda x: x.resize_(5),
    "out": lambda x: torch.add(x, 1, out=x),
    "chunk": lambda x: x.chunk(3)[0].zero_(),
    "copy": lambda x: x.copy_(x + 1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_arguments_are_not_changed(write: Callable[[Tensor], object]) -> None:
    x = torch.ones(3)

    def fn(a: Tensor, state: dict[str, Tensor]) -> Tensor:
        write(state["x"])
        return a

    match = r"changes argument 1 at x \(float32\[3\]\) in place.*Nothing was changed so far"
    with pytest.raises(MutationError, match=match):
        jit(fn)(ONES, {"x": x})
    assert equal(x, 1.0, 1.0, 1.0)


def test_own_tensors_may_be_written() -> None:
    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        y, out = x.clone(), torch.zeros(3)
        y[0] = 5
        y[1:].mul_(3)
        y += 1
        torch.add(x, 1, out=out)
        return y, out

    found = jit(fn)(ONES)
    assert equal(found[0], 6.0, 4.0, 4.0)
    assert equal(found[1], 2.0, 2.0, 2.0)


def test_gradients_belong_inside() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not make_fx(lambda x: x * 2)(ONES)(x.detach()).requires_grad
    fn = jit(lambda a, b: a * b)
    match = r"argument 1 \(float32\[3\]\) requires a gradient.*jit\(torch\.func\.grad\(fn\)\)"
    with pytest.raises(GradientError, match=match):
        fn(ONES, x)
    fn(ONES, ONES)
    with pytest.raises(GradientError, match=match):
        fn(ONES, x)
    with torch.no_grad():
        assert equal(fn(ONES, x), 1.0, 1.0, 1.0)
    with pytest.raises(GradientError, match=match):
        fn(ONES, x)
    assert equal(torch.func.grad(lambda x: fn(x, x).sum())(ONES), 2.0, 2.0, 2.0)

    def inside(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad((leaf**2).sum(), leaf)[0]

    assert equal(jit(inside)(TWOS), 4.0, 4.0, 4.0)


def test_side_effects_happen_in_the_trace_only() -> None:
    calls: list[int] = []

    def fn(x: Tensor) -> Tensor:
        print_like(calls)
        return x + 1

    def print_like(log: list[int]) -> None:
        log.append(1)

    jitted = jit(fn)
    jitted(ONES)
    calls.clear()
    jitted = jit(lambda x: (print(end=""), x)[1])
    jitted(ONES)
    jitted(ONES)
    assert jitted.cache_info() == (1, 1, 32, 1)


def test_errors_of_the_function_are_its_own() -> None:
    broken = True

    def fn(x: Tensor) -> Tensor:
        if broken:
            raise RuntimeError("my own .item()")
        return x

    jitted = jit(fn)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"^my own \.item\(\)$") as caught:
            jitted(ONES)
        assert not isinstance(caught.value, PurepyroError)
    broken = False
    assert equal(jitted(ONES), *[1.0] * 3)
    with pytest.raises(RuntimeError, match="got \\[3, 3\\] X \\[4, 4\\]"):
        jit(lambda x: x @ torch.ones(4, 4))(torch.ones(3, 3))
    untyped: Any = jitted
    with pytest.raises(TypeError):
        untyped()


# Outputs

VIEWS: dict[str, Callable[[Tensor], object]] = {
    "itself": lambda x: x,
    "row": lambda x: x[0],
    "transposed": lambda x: x.mT,
    "flat": lambda x: x.reshape(-1),
    "twice": lambda x: (x, x),
    "unbind": lambda x: x.unbind(),
    "chunk": lambda x: x.chunk(2),
    "detached": lambda x: x.detach(),
    "contiguous": lambda x: x.contiguous(),
    "same dtype": lambda x: x.to(torch.float32),
    "captured": lambda x: TWOS,
    "new twice": lambda x: (lambda y: (y, y, y[0]))(x + 1),
    "constant": lambda x: torch.ones(2),
    "written constant": lambda x: torch.tensor([1.0, 2.0]),
}


@pytest.mark.parametrize("fn", VIEWS.values(), ids=VIEWS)
def test_outputs_have_memory_of_their_own(fn: Callable[[Tensor], Any]) -> None:
    x = torch.arange(6.0).reshape(2, 3)
    jitted = jit(fn)
    for _ in range(2):
        outputs = [*jitted(x)] if isinstance(fn(x), (tuple, list)) else [jitted(x)]
        wanted = [*fn(x)] if isinstance(fn(x), (tuple, list)) else [fn(x)]
        for place, output in enumerate(outputs):
            assert torch.equal(output, wanted[place])
            output.fill_(77.0)
        assert torch.equal(x, torch.arange(6.0).reshape(2, 3))
        assert equal(TWOS, 2.0, 2.0, 2.0)


# The cache


def test_too_many_kinds() -> None:
    fn = jit(lambda x, n: x * n, max_specializations=3)
    for n in range(3):
        fn(ONES, n)
    match = r"has traced 3 graphs, as many as it may.*: argument 1 is 3, before 2\. Each trace"
    with pytest.raises(SpecializationError, match=match):
        fn(ONES, 3)
    assert equal(fn(ONES, 1), *[1.0] * 3)  # the others are still there
    assert fn.cache_info() == (1, 3, 3, 3)
    fn.cache_clear()
    assert fn.cache_info() == (1, 3, 3, 0)
    assert equal(fn(ONES, 3), *[3.0] * 3)


def test_each_trace_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="purepyro.jit")
    number, held = 1.0, ONES

    def fn(x: Tensor, n: int = 0, **more: Tensor) -> Tensor:
        return x * number + n + held

    jitted = jit(fn)
    jitted(ONES)
    jitted(ONES)
    jitted(torch.ones(2, 3))
    jitted(torch.ones(2, 3).double())
    jitted(ONES, 1)
    jitted(ONES, 2)
    jitted(ONES, 2, z=ONES)
    number = 3.0
    jitted(ONES, 2, z=ONES)
    held = torch.ones(1)
    jitted(ONES, 2, z=ONES)
    name = "jit(test_each_trace_says_why.<locals>.fn) traces graph"
    assert [record.getMessage().removeprefix(name) for record in caplog.records] == [
        " 1: the first call",
        " 2: argument 0 is float32[2, 3] with strides [3, 1] on cpu, before float32[3] with "
        "strides [1] on cpu",
        " 3: argument 0 is float64[2, 3] with strides [3, 1] on cpu, before float32[2, 3] with "
        "strides [3, 1] on cpu",
        " 4: argument 0 is float32[3] with strides [1] on cpu, before float64[2, 3] with strides "
        "[3, 1] on cpu",
        " 5: argument 1 is 2, before 1",
        " 6: the arguments have another structure",
        " 7: the captured number was 1.0 and is 3.0",
        " 8: a captured tensor has another shape, stride, dtype or device",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_what_is_no_function() -> None:
    not_callable: Any = ONES
    with pytest.raises(DeclarationError, match=r"jit got float32\[3\], which cannot be called"):
        jit(not_callable)


def test_disabled() -> None:
    fn = jit(lambda x: x * x.sum().item())
    with disable_jit():
        assert equal(fn(ONES), *[3.0] * 3)
    assert fn.cache_info().misses == 0


@jit
def decorated(x: Tensor) -> Tensor:
    """Doubles."""
    return 2 * x


def doubled(x: Tensor) -> Tensor:
    return 2 * x


def test_copies_and_pickles() -> None:
    assert (vars(decorated)["__name__"], decorated.__doc__) == ("decorated", "Doubles.")
    again: Jitted[[Tensor], Tensor] = pickle.loads(pickle.dumps(decorated))
    assert again is decorated
    fn = jit(doubled, max_specializations=5)
    fn(ONES)
    for copied in (pickle.loads(pickle.dumps(fn)), copy.deepcopy(fn), copy.copy(fn)):
        assert copied.cache_info() == (0, 0, 5, 0)
        assert equal(copied(ONES), 2.0, 2.0, 2.0)
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), compiled=True, progress_bar=False)
    wanted = svi.run(random.key(0), 3, x, y).losses
    again_svi = copy.deepcopy(svi)
    assert torch.equal(again_svi.run(random.key(0), 3, x, y).losses, wanted)
    assert torch.equal(attrs.evolve(svi).run(random.key(0), 3, x, y).losses, wanted)


def test_attributes_of_a_model_are_not_taken_over() -> None:
    """functools.update_wrapper would copy them all."""
    fn = jit(nn.Linear(3, 1))
    assert "_parameters" not in vars(fn)
    assert "training" not in vars(fn)


def test_threads_share_a_graph() -> None:
    """Law 12: concurrent calls give the results of serial ones, by one trace."""
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    step, other = jit(svi.step), jit(lambda x: x.square().sum())
    start = svi.init(random.key(0), x, y)
    wanted = svi.step(start, x, y)[1]
    found: list[Tensor] = []
    squares: list[Tensor] = []
    barrier = threading.Barrier(4)

    def stepping() -> None:
        barrier.wait()
        found.extend(step(start, x, y)[1] for _ in range(5))

    def squaring() -> None:
        barrier.wait()
        squares.extend(other(x + i) for i in range(20))

    threads = [threading.Thread(target=each) for each in (stepping, stepping, squaring, squaring)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 10
    for loss in found:
        torch.testing.assert_close(loss, wanted)
    assert len(squares) == 40
    assert step.cache_info().misses == 1
    assert other.cache_info().misses == 1


def test_a_jitted_helper_of_a_model_waits_for_no_other_thread() -> None:
    """One thread runs a model, and traces in it; another traces, and runs a model in that."""
    inside, go = threading.Event(), threading.Event()
    x = torch.ones(3)

    class Slow(Module):
        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            go.wait(5)
            found: Tensor = jit(lambda x: x + 1)(x)
            return found

    slow, model = Slow(), Scaled()
    traced = jit(lambda scale, key, x: apply(model, {"scale": scale}, key, x))
    first = threading.Thread(target=lambda: apply(slow, {}, random.key(0), x), daemon=True)
    second = threading.Thread(
        target=lambda: traced(torch.tensor(2.0), random.key(0), x), daemon=True
    )
    first.start()
    inside.wait(5)
    second.start()
    second.join(0.5)
    go.set()
    first.join(20)
    second.join(20)
    assert not first.is_alive()
    assert not second.is_alive()


# What torch has for control flow, and for compiling


def test_functions_that_take_functions_are_refused() -> None:
    def step(x: Tensor) -> tuple[Tensor]:
        return (x + 1,)

    repeat: Any = while_loop  # which torch leaves untyped
    loops: dict[str, Callable[[Tensor], object]] = {
        "while_loop": lambda x: repeat(lambda i: i.sum() < 10, step, (x,)),
        "cond": lambda x: cond(x.sum() > 2, torch.sin, torch.cos, (x,)),
        "scan": lambda x: scan(lambda a, b: (a + b, a * b), x[0], x),
    }
    for name, fn in loops.items():
        with pytest.raises(TraceError, match=rf"calls torch's `{name}` at .*test_jit.py:\d+: `"):
            jit(fn)(ONES)
    with pytest.raises(TraceError, match=r"needs no torch\.compile within"):
        jit(lambda x: torch.compile(torch.sin)(x))(ONES)
    # The ways out.
    chosen = jit(lambda x: torch.where(x.sum() > 2, x.sin(), x.cos()))
    assert torch.equal(chosen(ONES), ONES.sin())
