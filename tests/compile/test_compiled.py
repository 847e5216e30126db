"""What the compiler makes of graphs, on a representative few."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import pytest
import torch
import torchopt
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from models import regression, regression_data
from purepyro import jit, random
from purepyro._compat._tracing import Guard
from purepyro._compile.inductor import _inductor
from purepyro._compile.inductor._inductor import inductor
from purepyro._errors import GradientError
from purepyro.infer import SVI, AutoNormal
from purepyro.random._bits._philox_operators import OPERATOR

pytestmark = pytest.mark.compiled


class Result(NamedTuple):
    total: Tensor
    parts: dict[str, Tensor | int | None]


def test_one_graph_many_calls() -> None:
    """Views, inputs, captured tensors, one tensor twice: on a single graph."""
    held = torch.ones(2, 3)

    @jit
    def fn(x: Tensor, y: Tensor, n: int) -> Result:
        row, *_ = y.unbind()
        return Result((x * y * held).sum() * n, {"x": x, "row": row, "n": n, "none": None})

    x, y = torch.ones(2, 3), torch.full((2, 3), 2.0)
    assert fn(x, x, 3).total == 18.0
    found = fn(x, y, 3)
    assert found.total == 36.0
    assert found.parts["n"] == 3
    for name in ("x", "row"):
        part = found.parts[name]
        assert isinstance(part, Tensor)
        part.fill_(77.0)
    assert fn(x, y, 3).total == 36.0
    held.mul_(2.0)
    assert fn(x, y, 3).total == 72.0
    held = torch.zeros(2, 3)
    assert fn(x, y, 3).total == 0.0
    assert fn.cache_info() == (4, 1, 32, 1)


def test_a_wrong_dtype_never_reaches_the_compiled_graph() -> None:
    def fn(x: Tensor) -> Tensor:
        return x * 2 + 1

    x = torch.arange(6.0).reshape(2, 3)
    trap = inductor(make_fx(fn, tracing_mode="fake")(x), [x], "mark")
    for other in (x.long(), x.double()):  # the trap: garbage, without an error
        found: Any = trap(other)
        one: Tensor = found if isinstance(found, Tensor) else found[0]
        assert one.dtype != other.dtype or not torch.equal(one, fn(other))
    jitted = jit(fn)
    for other in (x, x.double(), x.mT.contiguous().mT):
        torch.testing.assert_close(jitted(other), fn(other))
    assert jitted.cache_info().currsize == 3


def test_a_guard() -> None:
    x, y = torch.ones(2, 3), torch.ones(3)
    guard = Guard([x, y])
    assert guard.holds([x + 1, y + 1])
    assert not guard.holds([x])
    for other in (x.double(), x.mT, x[:1], x.mT.contiguous().mT, x.clone().requires_grad_()):
        assert not guard.holds([other, y])


def test_a_step(key: random.Key) -> None:
    """Draws are those of eager mode to rounding (law 4)."""
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    state, step = svi.init(key, x, y), jit(svi.step)
    for _ in range(3):
        wanted, wanted_loss = svi.step(state, x, y)
        state, loss = step(state, x, y)
        torch.testing.assert_close(loss, wanted_loss)
        torch.testing.assert_close(state.params, wanted.params)
    with pytest.raises(GradientError, match="argument 1"):
        step(state, x.clone().requires_grad_(), y)
    assert step.cache_info() == (2, 1, 32, 1)


def test_draws_are_spelled_out_though_others_compiled_first() -> None:
    """Inductor's table of decompositions, as it was before the first use of ours."""
    home: Any = import_module("torch._inductor.decomposition")
    home.decompositions.pop(OPERATOR, None)
    home.fast_random_decomps.cache_clear()
    assert OPERATOR not in home.select_decomp_table()
    _inductor._inductor.cache_clear()
    _inductor._inductor()
    assert OPERATOR in home.select_decomp_table()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_on_cuda_is_one_on_the_cpu(key: random.Key) -> None:
    model, (x, y) = regression(), regression_data()
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
    step = jit(svi.step)
    state, loss = svi.step(svi.init(key, x, y), x, y)
    cuda = torch.device("cuda")
    x, y = x.to(cuda), y.to(cuda)
    start = svi.init(random.Key(key.to(cuda)), x, y)
    for _ in range(2):
        found, found_loss = step(start, x, y)
        torch.testing.assert_close(found_loss.cpu(), loss, rtol=1e-4, atol=1e-4)
        for name, value in found.params.items():
            torch.testing.assert_close(value.cpu(), state.params[name], rtol=1e-4, atol=1e-4)
    assert step.cache_info() == (1, 1, 32, 1)
