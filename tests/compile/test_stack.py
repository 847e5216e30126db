"""Small buffers lie on the stack, and whatever leaves a graph does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro._compile import _inductor, _stack
from purepyro._compile._loop import Loop

pytestmark = pytest.mark.compiled

# Of numbers: small, large, small enough but not all of it.
SIZES = 5, 30_000, 4_000


def results(x: Tensor) -> list[Tensor]:
    """Buffers between reductions: returned as they are, viewed, written over, returned twice."""
    total = x.sum()
    centred = x - total / len(x)
    square = centred.square().sum()
    scaled = centred / square
    parts = [(scaled * i).cos().sum() for i in range(30)]
    tail = torch.stack(parts).sum() + scaled
    return [total, scaled, scaled.reshape(1, -1)[:, 1:], square, square, tail - tail.sum()]


def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same, one after another."""
    state = results(state)[-1] + x
    return state, state.sum()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the buffers that went on the stack, of graphs compiled anew."""
    found: list[int] = []
    asked = _stack._SmallBuffersOnStack.can_stack_allocate_buffer

    def ask(self: _stack._SmallBuffersOnStack, buffer: object) -> bool:
        answer = asked(self, buffer)
        found.extend([_stack._bytes(buffer) or 0] if answer else [])
        return answer

    config: Any = import_module("torch._inductor.config")
    monkeypatch.setattr(_stack._SmallBuffersOnStack, "can_stack_allocate_buffer", ask)
    with config.patch(force_disable_caches=True):
        yield found


def compiled(fn: Callable[[Tensor], list[Tensor]], x: Tensor) -> Callable[[Tensor], list[Tensor]]:
    module: fx.GraphModule = make_fx(fn, tracing_mode="real")(x)
    run = _inductor.inductor(module, [x], f"{fn.__name__} {len(x)}")
    return lambda x: list(run(x))


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_results_outlive_the_call(size: int, taken: list[int]) -> None:
    x = torch.linspace(0.0, 1.0, size, dtype=torch.float64)
    run = compiled(results, x)
    assert taken
    assert max(taken) <= 16 << 10
    assert sum(taken) <= 96 << 10
    found = [run(x + i) for i in range(3)]
    for i, each in enumerate(found):
        torch.testing.assert_close(each, results(x + i), rtol=1e-8, atol=1e-8)


def test_a_loop_hands_on_what_outlives_a_turn(taken: list[int]) -> None:
    x = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    block = Loop(step).take(x, 3, 0, [x], {})
    assert taken
    wanted, sums = x, []
    for _ in range(3):
        wanted, total = step(wanted, x)
        sums.append(total)
    torch.testing.assert_close(block, (wanted, torch.stack(sums)))


@pytest.mark.parametrize("missing", ["_wrapper", "_device"])
def test_a_torch_without_such_a_wrapper(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stack, missing, lambda: None)
    with _stack.small_buffers_on_stack() as settings:
        assert not settings


def test_a_wrapper_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    compile_ = _inductor._compiled

    def fail(
        module: fx.GraphModule, inputs: Sequence[Tensor], settings: dict[str, object]
    ) -> _inductor.Run:
        asked.append("aot_inductor.allow_stack_allocation" in settings)
        if asked[-1]:
            error: Any = import_module("torch._inductor.exc")
            raise error.InductorError(RuntimeError("a wrapper of another torch"), None)
        return compile_(module, inputs, settings)

    monkeypatch.setattr(_inductor, "_compiled", fail)
    x = torch.ones(3)
    assert torch.equal(compiled(lambda x: [x + 1], x)(x)[0], x + 1)
    assert asked == [True, False]


def test_the_next_compilation_has_torch_s_own_wrapper() -> None:
    device = _stack._device()
    before = device.cpp_wrapper_codegen

    @contextmanager
    def inside() -> Iterator[None]:
        with _stack.small_buffers_on_stack():
            assert device.cpp_wrapper_codegen is _stack._wrapper()
            yield

    with pytest.raises(ZeroDivisionError), inside():
        raise ZeroDivisionError
    assert device.cpp_wrapper_codegen is before
