"""Law 1: same arguments, same result; all else is as before, after a success and an exception."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.poutine import runtime
from torch import Tensor

from models import regression, regression_data
from purepyro import Module, PyroSample, apply, init, log_density, random, trace


@contextmanager
def nothing_changes() -> Iterator[None]:
    """Everything global that a run could touch is compared."""
    pyro.param("mine", torch.tensor(3.0))
    store = pyro.get_param_store()
    before = {name: store._params[name] for name in store}
    stack, dims = list(runtime._PYRO_STACK), list(runtime._DIM_ALLOCATOR._stack)
    default, generator = runtime.default_process_message, torch.get_rng_state()
    settings = pyro.settings.get()
    yield
    assert {name: store._params[name] for name in store} == before
    assert store["mine"].item() == 3.0
    assert stack == runtime._PYRO_STACK
    assert runtime._DIM_ALLOCATOR._stack == dims
    assert runtime.default_process_message is default
    assert pyro.settings.get() == settings
    assert torch.equal(torch.get_rng_state(), generator)


def failing(x: Tensor) -> None:
    """Fails in the middle of everything a model can open."""
    pyro.param("p", torch.tensor(1.0))
    torch.randn(3)
    with pyro.plate("data", 4), poutine.scale(scale=2.0):
        pyro.sample("z", dist.Normal(x, 1.0))
        raise ArithmeticError("on purpose")


class Stray(Module):
    """Calls torch's random functions itself, with and without failing."""

    fail: bool
    z = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self) -> Tensor:
        value = self.z + torch.randn(3)
        if self.fail:
            raise ArithmeticError("on purpose")
        return value


def test_after_a_success(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    given = copy.deepcopy((params, x, y))
    with nothing_changes():
        first = trace(model, params, key, x, y)
        again = trace(model, params, key, x, y)
        log_density(model, params, first[1].latents, x, y)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close((params, x, y), given, rtol=0, atol=0)


def test_after_an_exception(key: random.Key) -> None:
    with nothing_changes(), pytest.raises(ArithmeticError):
        apply(failing, {"p": torch.tensor(1.0)}, key, torch.zeros(()))
    with nothing_changes(), pytest.raises(ArithmeticError):
        apply(Stray(True), {}, key)


def test_randomness_of_torch_inside_a_model_is_keyed(key: random.Key) -> None:
    with nothing_changes():
        first = apply(Stray(False), {}, key)
        again = apply(Stray(False), {}, key)
    assert torch.equal(first, again)
    assert not torch.equal(first, apply(Stray(False), {}, random.key(1)))
    many = torch.vmap(lambda key: apply(Stray(False), {}, random.Key(key)))(random.split(key, 3))
    one = apply(Stray(False), {}, random.Key(random.split(key, 3)[1]))
    assert torch.equal(many[1], one)


def test_handlers_around_apply_do_not_reach_in(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    params = init(model, key)
    alone = apply(model, params, key, x, y)
    with (
        nothing_changes(),
        poutine.trace() as outer,
        poutine.condition(data={"sigma": torch.tensor(9.0)}),
        pyro.plate("around", 7),
    ):
        inside = apply(model, params, key, x, y)
    assert torch.equal(inside, alone)
    assert set(outer.trace.nodes) <= {"around"}
