"""Buffers lie on the stack or in memory that is reused, and whatever leaves a graph does not."""

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

while_loop: Any = import_module("torch._higher_order_ops").while_loop

# Elements: small, large, small enough but not all of it.
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
def reused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the buffers whose memory is reused, of graphs compiled anew."""
    found: list[int] = []
    write = _cpp_buffers.QuickBuffers._write_reused

    def note(self: _cpp_buffers.QuickBuffers, buffer: object) -> None:
        found.append(_cpp_buffers._bytes(buffer) or 0)
        write(self, buffer)

    config: Any = import_module("torch._inductor.config")
    monkeypatch.setattr(_cpp_buffers.QuickBuffers, "_write_reused", note)
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
def test_memory_is_reused_for_what_stays_inside(
    fn: Callable[[Tensor], list[Tensor]], reused: list[int]
) -> None:
    x = torch.linspace(-1.0, 1.0, 20_000, dtype=torch.float64).view(200, 100)
    run = compiled(fn, x)
    assert reused
    assert all(16 << 10 < size <= 16 << 20 for size in reused)
    assert sum(reused) <= 32 << 20
    with torch.inference_mode():
        first = run(x)
    with ThreadPoolExecutor(2) as pool:
        found = [first, *pool.map(run, [x + 1, x + 2, x + 3, x + 4])]
    for i, each in enumerate(found):
        torch.testing.assert_close(each, fn(x + i), rtol=1e-8, atol=1e-8)


def test_a_loop_hands_on_what_outlives_an_iteration(taken: list[int]) -> None:
    x = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    block = Loop(step).take(x, 3, 0, [x], {})
    assert taken
    wanted, sums = x, []
    for _ in range(3):
        wanted, total = step(wanted, x)
        sums.append(total)
    torch.testing.assert_close((block.state, block.recorded), (wanted, torch.stack(sums)))


def iteration(old: Tensor, new: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The last is handed on; the next is made of both, by a function of a library."""
    square = new @ old.mT
    return new.clone(), (square / size).tanh() @ old / size + new.mean()


def looped(count: Tensor, x: Tensor) -> list[Tensor]:
    """A loop, then one within a loop; of its results one is also used, and one seen in part."""
    start = torch.zeros((), dtype=torch.int64)

    def more(i: Tensor, *_: Tensor) -> Tensor:
        return i < count

    def body(i: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
        return i + 1, *iteration(old, new, len(x))

    def outer(i: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
        _, before, after = while_loop(more, body, (start.clone(), old, new))
        return i + 1, after - old, before.cos()

    _, old, new = while_loop(more, body, (start, x, x.cos()))
    _, first, second = while_loop(more, outer, (start.clone(), old, new))
    return [old, new[1:], new.sum(), first, second]


def plain(count: int, x: Tensor) -> list[Tensor]:
    def body(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(count):
            old, new = iteration(old, new, len(x))
        return old, new

    old, new = body(x, x.cos())
    first, second = old, new
    for _ in range(count):
        before, after = body(first, second)
        first, second = after - first, before.cos()
    return [old, new[1:], new.sum(), first, second]


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 100], ids=["small", "large"])
def test_no_iteration_writes_over_what_is_read(size: int, taken: list[int]) -> None:
    x = torch.linspace(-1.0, 1.0, size * size, dtype=torch.float64).view(size, size)
    inputs = [torch.tensor(2), x]
    torch.compiler.reset()  # or the second size seen is traced as one that varies
    run = _inductor.inductor(make_fx(looped)(*inputs), inputs, f"iterations {size}")
    assert taken or size > 3
    counts = 0, 1, 2, 3, 4
    with torch.inference_mode():
        found = [run(torch.tensor(2), x)]
    with ThreadPoolExecutor(2) as pool:
        found += pool.map(lambda count: run(torch.tensor(count), x), counts)
    for count, each in zip((2, *counts), found, strict=True):
        torch.testing.assert_close(list(each), plain(count, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("missing", ["_wrapper", "_device"])
def test_a_torch_without_such_a_wrapper(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpp_wrapper, missing, lambda: None)
    with _cpp_wrapper.quick_buffers() as settings:
        assert not settings


def test_a_wrapper_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool | None] = []
    compile_ = _inductor._compiled

    config: Any = import_module("torch._inductor.config")

    def fail(module: fx.GraphModule, inputs: Sequence[Tensor]) -> _inductor.Run:
        asked.append(config.aot_inductor.allow_stack_allocation)
        if asked[-1]:
            error: Any = import_module("torch._inductor.exc")
            raise error.InductorError(RuntimeError("a wrapper of another torch"), None)
        return compile_(module, inputs)

    monkeypatch.setattr(_inductor, "_compiled", fail)
    monkeypatch.setattr(_inductor, "_FAILED", [RuntimeError("graphs go all of torch's way")])
    x = torch.ones(3)
    assert torch.equal(compiled(lambda x: [x + 1], x)(x)[0], x + 1)
    assert [bool(each) for each in asked] == [True, False]


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
def test_memory_is_reused_for_tensors_without_gaps(
    sizes: list[int], strides: list[int], dense: bool
) -> None:
    buffer = SimpleNamespace(get_size=lambda: sizes, get_stride=lambda: strides)
    assert _cpp_buffers._is_dense(buffer) is dense
