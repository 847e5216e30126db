"""Tensors of loops are made once, and no turn writes over what another still reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro._compile.inductor import _inductor
from purepyro._compile.inductor._cpp_loops import Turns, _Loop

pytestmark = pytest.mark.compiled

while_loop: Any = import_module("torch._higher_order_ops").while_loop


def turn(old: Tensor, new: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The last is handed on; the next is made of both, by a function of a library."""
    square = new @ old.mT
    return new.clone(), (square / size).tanh() @ old / size + new.mean()


def looped(count: Tensor, x: Tensor) -> list[Tensor]:
    """A loop, then one within a loop; of its results one is also used, and one seen in part."""
    start = torch.zeros((), dtype=torch.int64)

    def more(i: Tensor, *_: Tensor) -> Tensor:
        return i < count

    def body(i: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
        return i + 1, *turn(old, new, len(x))

    def outer(i: Tensor, old: Tensor, new: Tensor) -> tuple[Tensor, ...]:
        _, before, after = while_loop(more, body, (start.clone(), old, new))
        return i + 1, after - old, before.cos()

    _, old, new = while_loop(more, body, (start, x, x.cos()))
    _, first, second = while_loop(more, outer, (start.clone(), old, new))
    return [old, new[1:], new.sum(), first, second]


def plain(count: int, x: Tensor) -> list[Tensor]:
    def body(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(count):
            old, new = turn(old, new, len(x))
        return old, new

    old, new = body(x, x.cos())
    first, second = old, new
    for _ in range(count):
        before, after = body(first, second)
        first, second = after - first, before.cos()
    return [old, new[1:], new.sum(), first, second]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many memories the tensors of loops have."""
    found: list[int] = []
    ask = Turns._memories

    def note(self: Turns, buffer: object) -> int:
        found.append(ask(self, buffer))
        return found[-1]

    monkeypatch.setattr(Turns, "_memories", note)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 100], ids=["small", "large"])
def test_no_turn_writes_over_what_is_read(size: int, made: list[int]) -> None:
    x = torch.linspace(-1.0, 1.0, size * size, dtype=torch.float64).view(size, size)
    inputs = [torch.tensor(2), x]
    torch.compiler.reset()  # or the second size seen is traced as one that varies
    module = make_fx(looped)(*inputs)
    config: Any = import_module("torch._inductor.config")
    with config.patch(force_disable_caches=True):
        run = _inductor.inductor(module, inputs, f"turns {size}")
    assert {1, 2} <= set(made)
    counts = 0, 1, 2, 3, 4
    with torch.inference_mode():
        found = [run(torch.tensor(2), x)]
    with ThreadPoolExecutor(2) as pool:
        found += pool.map(lambda count: run(torch.tensor(count), x), counts)
    for count, each in zip((2, *counts), found, strict=True):
        torch.testing.assert_close(list(each), plain(count, x), rtol=1e-10, atol=1e-10)


class Graph:
    """That of a loop's body, with a result and what it was given."""

    graph_inputs = ("carried",)

    def __init__(self, *results: str) -> None:
        self.get_output_names = lambda: list(results)


@pytest.mark.parametrize(("others", "count"), [((), 2), (("more",), 2), (("carried",), 0)])
def test_what_is_handed_on_as_it_was_may_be_of_the_turn_before(
    others: tuple[str, ...], count: int
) -> None:
    graph = Graph("made", *others)
    wrapper: Any = SimpleNamespace(
        codegened_graph_stack=[graph],
        _loops={graph: _Loop([], None)},
        _is_tensor=lambda _: True,
    )
    assert Turns._memories(wrapper, SimpleNamespace(get_name=lambda: "made")) == count
