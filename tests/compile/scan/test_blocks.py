"""Between blocks a state is in few tensors; nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from purepyro import random
from purepyro._compile.scan import _blocks
from purepyro._compile.scan._partition import Roles
from purepyro._compile.scan._scan import Loop

State: TypeAlias = dict[str, Tensor]
X = torch.linspace(-1.0, 1.0, 6)


def start(*counts: int) -> State:
    """Parameters of several shapes, with a count of steps each, and a key."""
    found = {"key": random.key(3), "scale": torch.tensor(0.5), "wide": torch.ones(2, 3)}
    return found | {f"count {i}": torch.tensor(count) for i, count in enumerate(counts)}


def step(state: State, x: Tensor) -> tuple[State, Tensor]:
    """Draws, and moves by as much less as has been counted."""
    counts = {name: value for name, value in state.items() if name.startswith("count")}
    first, *others = counts.values()
    noise = random.normal(random.fold_in(random.Key(state["key"]), first), 3)
    rate = sum((0.9**count for count in others), 0.9**first)
    new = {
        "key": state["key"],
        "scale": state["scale"] * 0.9 + rate * x.mean(),
        "wide": state["wide"] - rate * 0.1 * (state["wide"] - noise) * state["scale"],
        **{name: value + 1 for name, value in counts.items()},
    }
    return new, new["wide"].square().sum()


def singly(state: State, count: int, taking: Callable[..., Any] = step) -> tuple[State, Tensor]:
    losses = []
    for _ in range(count):
        state, loss = taking(state, X)
        losses.append(loss)
    return state, torch.stack(losses)


def looped(loop: Loop[State], state: State, count: int) -> tuple[State, Tensor]:
    at = int(state["count 0"])
    blocks = list(loop.blocks(state, count, at, (X,), {}))
    return blocks[-1].state, torch.cat([block.recorded for block in blocks])


@pytest.fixture(autouse=True)
def few_rows(uncompiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four steps, operation by operation."""
    monkeypatch.setattr(_blocks, "_ROWS", 4)


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 2, 7), (3, 2, 1), (5,)])
def test_counters_that_are_equal_are_one(counts: tuple[int, ...]) -> None:
    loop, state = Loop(step), start(*counts)
    torch.testing.assert_close(looped(loop, state, 11), singly(state, 11))
    built = loop._built.find((state, X), {}).built
    (blocks,) = built._known.values()
    assert len(blocks.step.counters) == len(set(counts))


def test_counters_that_come_apart() -> None:
    loop = Loop(step)
    for counts in ((0, 0, 0), (4, 4, 4), (4, 4, 5), (4, 5, 5), (1, 2, 3), (3, 4, 3), (9, 9, 9)):
        torch.testing.assert_close(looped(loop, start(*counts), 6), singly(start(*counts), 6))
    built = loop._built.find((start(0, 0, 0), X), {}).built
    assert len(built._known) == _blocks._LIMIT
    assert loop._built.info().misses == 1


def test_past_the_limit_counters_are_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "_LIMIT", 0)
    loop = Loop(step)
    torch.testing.assert_close(looped(loop, start(1, 1, 1), 6), singly(start(1, 1, 1), 6))
    (blocks,) = loop._built.find((start(1, 1, 1), X), {}).built._known.values()
    assert len(blocks.step.counters) == 3


def test_which_counters_are_equal() -> None:
    state = [
        torch.tensor(1),
        torch.tensor([1, 1]),
        torch.tensor(1),
        torch.tensor([1, 2]),
        torch.tensor(1, dtype=torch.int32),
        torch.tensor([1, 1]),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
    ]
    found = Roles(tuple((i,) for i in range(8)), (8,)).at(state)
    assert found == Roles(((0, 2), (1, 5), (3,), (4,), (6, 7)), (8,))
    assert Roles((), (0,)).at(state) == Roles((), (0,))


def test_each_tensor_of_a_state_is_its_own() -> None:
    block = Loop(step).take(start(0, 0), 3, 0, (X,), {})
    before = {name: value.clone() for name, value in block.state.items()}
    block.state["count 0"].zero_()
    block.state["scale"].zero_()
    for name in ("count 1", "wide", "key"):
        assert torch.equal(block.state[name], before[name])


def test_the_state_after_each_block() -> None:
    state, at = start(0, 0), 0
    for block in Loop(step).blocks(state, 11, 0, (X,), {}):
        taken = len(block.recorded)
        torch.testing.assert_close((block.state, block.recorded), singly(state, taken))
        state, at = block.state, at + taken
    assert at == 11


class Model:
    """A step with tensors and a setting of its own."""

    def __init__(self) -> None:
        self.bias = torch.zeros(3)
        self.sign = 1.0

    def step(self, state: State, x: Tensor) -> tuple[State, Tensor]:
        wide = self.sign * state["wide"] * 0.9 + self.bias
        return {**state, "wide": wide, "count 0": state["count 0"] + 1}, wide.sum() + x.sum()


def another_tensor(model: Model) -> None:
    model.bias = model.bias + 1.0


def another_dtype(model: Model) -> None:
    model.bias.data = torch.ones(3, dtype=torch.float64)


def another_setting(model: Model) -> None:
    model.sign = -1.0


def written_into(model: Model) -> None:
    model.bias += 1.0


@pytest.mark.parametrize("change", [another_tensor, another_dtype, another_setting, written_into])
def test_what_changes_between_blocks_is_seen(change: Callable[[Model], None]) -> None:
    ours, theirs = Model(), Model()
    blocks = Loop(ours.step).blocks(start(0), 8, 0, (X,), {})
    first = next(blocks)
    change(ours)
    second = next(blocks)
    state, losses = singly(start(0), len(first.recorded), theirs.step)
    torch.testing.assert_close((first.state, first.recorded), (state, losses))
    change(theirs)
    expected = singly(state, len(second.recorded), theirs.step)
    torch.testing.assert_close((second.state, second.recorded), expected, check_dtype=False)
