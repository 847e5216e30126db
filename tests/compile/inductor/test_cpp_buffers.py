"""Buffers lie on the stack or in memory that is kept, and whatever leaves a graph does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro._compile.inductor import _cpp_buffers, _cpp_wrapper, _inductor
from purepyro._compile.scan._scan import Loop

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
    asked = _cpp_buffers.QuickBuffers.can_stack_allocate_buffer

    def ask(self: _cpp_buffers.QuickBuffers, buffer: object) -> bool:
        answer = asked(self, buffer)
        found.extend([_cpp_buffers._bytes(buffer) or 0] if answer else [])
        return answer

    config: Any = import_module("torch._inductor.config")
    monkeypatch.setattr(_cpp_buffers.QuickBuffers, "can_stack_allocate_buffer", ask)
    with config.patch(force_disable_caches=True):
        yield found


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the buffers whose memory is kept, of graphs compiled anew."""
    found: list[int] = []
    keep = _cpp_buffers.QuickBuffers._write_kept

    def note(
        self: _cpp_buffers.QuickBuffers, buffer: object, name: str, line: Callable[[str], object]
    ) -> None:
        found.append(_cpp_buffers._bytes(buffer) or 0)
        keep(self, buffer, name, line)

    config: Any = import_module("torch._inductor.config")
    monkeypatch.setattr(_cpp_buffers.QuickBuffers, "_write_kept", note)
    with config.patch(force_disable_caches=True):
        yield found


def layers(x: Tensor) -> list[Tensor]:
    """Products of a library's, what lies between them, and parts of both as results."""
    hidden = (x @ x.mT).tanh()
    after = (hidden @ x).cos()
    last = after @ x.mT
    return [last.sum(), after[1:], hidden.mT, (last - last.mean(0)).sort().values]


def written(x: Tensor) -> list[Tensor]:
    """Results that are written into, put together, made by a library, and seen in other shapes."""
    square = x @ x.mT
    ones, places = torch.ones(len(x), dtype=x.dtype), torch.arange(len(x))
    both = torch.cat([square, square.cos()])
    return [
        square.diagonal_scatter(ones),
        (0 * square).index_put((places, places.flip(0)), x.sum(1)),
        square.index_add(0, places[:2], square[2:4]),
        both,
        torch.cat([square[:3], both[5:60]]),
        torch.linalg.cholesky(square + 1e3 * ones.diag()),
        (square @ square).softmax(1).reshape(-1)[10:],
        square.expand(2, -1, -1),
        square.unfold(0, 4, 2),
        square.tril(),
    ]


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch warns of its own functions
@pytest.mark.parametrize("fn", [layers, written])
def test_memory_is_kept_for_what_stays_inside(
    fn: Callable[[Tensor], list[Tensor]], kept: list[int]
) -> None:
    x = torch.linspace(-1.0, 1.0, 20_000, dtype=torch.float64).view(200, 100)
    run = compiled(fn, x)
    assert kept
    assert all(16 << 10 < size <= 16 << 20 for size in kept)
    assert sum(kept) <= 32 << 20
    with torch.inference_mode():
        first = run(x)
    with ThreadPoolExecutor(2) as pool:
        found = [first, *pool.map(run, [x + 1, x + 2, x + 3, x + 4])]
    for i, each in enumerate(found):
        torch.testing.assert_close(each, fn(x + i), rtol=1e-8, atol=1e-8)


def test_a_loop_hands_on_what_outlives_a_turn(taken: list[int]) -> None:
    x = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    block = Loop(step).take(x, 3, 0, [x], {})
    assert taken
    wanted, sums = x, []
    for _ in range(3):
        wanted, total = step(wanted, x)
        sums.append(total)
    torch.testing.assert_close((block.state, block.recorded), (wanted, torch.stack(sums)))


@pytest.mark.parametrize("missing", ["_wrapper", "_device"])
def test_a_torch_without_such_a_wrapper(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpp_wrapper, missing, lambda: None)
    with _cpp_wrapper.quick_buffers() as settings:
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
    device = _cpp_wrapper._device()
    before = device.cpp_wrapper_codegen

    @contextmanager
    def inside() -> Iterator[None]:
        with _cpp_wrapper.quick_buffers():
            assert device.cpp_wrapper_codegen is _cpp_wrapper._wrapper()
            yield

    with pytest.raises(ZeroDivisionError), inside():
        raise ZeroDivisionError
    assert device.cpp_wrapper_codegen is before


def test_a_torch_that_hides_what_it_calls() -> None:
    def run(*inputs: Tensor) -> list[Tensor]:
        return list(inputs)

    assert _inductor._directly(run) is run


@pytest.mark.parametrize(
    ("sizes", "strides", "dense"),
    [
        ([], [], True),
        ([10, 50, 442], [22_100, 442, 1], True),
        ([3, 4], [1, 3], True),
        ([3, 4], [8, 1], False),
        ([3, 4], [0, 1], False),
    ],
)
def test_memory_is_kept_for_numbers_without_gaps(
    sizes: list[int], strides: list[int], dense: bool
) -> None:
    buffer = SimpleNamespace(get_size=lambda: sizes, get_stride=lambda: strides)
    assert _cpp_buffers._is_dense(buffer) is dense
