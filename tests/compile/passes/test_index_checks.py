"""Indices out of range are errors in compiled code, never somebody else's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
import pyro
import pyro.distributions as dist
import pytest
import torch
import torchopt
from torch import Tensor
from torch.nn import functional

from purepyro import jit, random
from purepyro._compile._trace import trace
from purepyro._compile.scan._scan import Loop
from purepyro._errors import OutOfRangeError, PurepyroError
from purepyro.infer import SVI, AutoNormal

pytestmark = pytest.mark.compiled

ROW = torch.arange(5.0) * 2
SQUARE = torch.arange(25.0).reshape(5, 5)

# From indices of which -1 is allowed in some, and 5 in none.
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "index": lambda i: ROW[i],
    "two": lambda i: SQUARE[i, i[:, None]],
    "behind": lambda i: SQUARE[:, i],
    "narrow": lambda i: ROW[i.to(torch.int32)],
    "put": lambda i: ROW.index_put((i,), torch.zeros(())),
    "accumulate": lambda i: ROW.index_put((i,), torch.ones(3), accumulate=True),
    "take": lambda i: torch.take(SQUARE[:, 0], i),
    "index_fill": lambda i: ROW.index_fill(0, i, 3.0),
    "gather": lambda i: ROW.gather(0, i),
    "scatter": lambda i: ROW.scatter(0, i, 9.0),
    "scatter_add": lambda i: ROW.scatter_add(0, i, ROW[:3]),
    "scatter_reduce": lambda i: ROW.scatter_reduce(0, i, ROW[:3], "amax"),
    "index_add": lambda i: ROW.index_add(0, i, ROW[:3]),
    "index_copy": lambda i: ROW.index_copy(0, i, ROW[:3]),
    "index_select": lambda i: SQUARE.index_select(1, i),
    "embedding": lambda i: functional.embedding(i, SQUARE),
    "embedding_bag": lambda i: functional.embedding_bag(i[None], SQUARE),
    "cross_entropy": lambda i: functional.cross_entropy(SQUARE[:3], i),
    "batched": lambda i: torch.vmap(lambda j: ROW[j])(i),
    "gradient": lambda i: torch.func.grad(lambda x: x[i].square().sum())(ROW),
    "gradient of rows": lambda i: torch.func.grad(
        lambda x: functional.embedding(i, x).square().sum()
    )(SQUARE),
}
FROM_END = {"index", "two", "behind", "narrow", "put", "accumulate", "take", "index_fill"}
FROM_END |= {"batched", "gradient"}
GOOD = torch.tensor([0, 4, 1])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_index(way: str) -> None:
    """Results where the index is in range; an error where eager torch has one, with its kind."""
    fn, jitted = WAYS[way], jit(WAYS[way])
    assert torch.equal(jitted(GOOD), fn(GOOD))
    for bad in ([0, 5, 1], [1_000_000, 0, 2], [0, -6, 1], [0, 1, -(2**40)]):
        if way == "narrow" and min(bad) < -(2**31):
            continue
        if way != "take_along_dim":  # which torch 2.13 does not check
            with pytest.raises((IndexError, RuntimeError)):
                fn(torch.tensor(bad))
        with pytest.raises(OutOfRangeError, match=r"out of range .*`.*test_index_checks.py:\d+: `.*i"):
            jitted(torch.tensor(bad))
    ends = torch.tensor([-1, 1, 0])
    if way in FROM_END:
        assert torch.equal(jitted(ends), fn(ends))
    else:
        with pytest.raises(OutOfRangeError, match=r"Index -1 is out of range .*allowed are 0 to 4"):
            jitted(ends)
    assert torch.equal(jitted(GOOD), fn(GOOD))
    assert jitted.cache_info().currsize == 1


@pytest.mark.usefixtures("uncompiled")
def test_the_error_says_what_and_where() -> None:
    def pick(effect: Tensor, group: Tensor) -> Tensor:
        return effect[group]

    jitted = jit(pick)
    with pytest.raises(PurepyroError, match=r"count from 0; torch\.unique") as caught:
        jitted(ROW, torch.tensor([1, 5]))
    assert isinstance(caught.value, IndexError)
    text = str(caught.value)
    assert text.startswith("Index 5 is out of range for a dimension of 5 elements")
    assert "`return effect[group]`; allowed are -5 to 4" in text
    group = torch.unique(torch.tensor([7, 12]), return_inverse=True)[1]  # the way out
    assert torch.equal(jitted(ROW, group), ROW[:2])
    for least in torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max:
        with pytest.raises(OutOfRangeError, match="There is an index out of range"):
            jitted(ROW, torch.tensor([0, least]))


@pytest.mark.usefixtures("uncompiled")
def test_along_a_dimension_any_index_is_one() -> None:
    """Torch takes it modulo the length there."""

    def pick(i: Tensor) -> Tensor:
        return torch.take_along_dim(SQUARE, i.repeat(5, 1), 1)

    jitted = jit(pick)
    for index in GOOD, GOOD - 1, GOOD + 12:
        assert torch.equal(jitted(index), pick(index))


@pytest.mark.usefixtures("uncompiled")
def test_nothing_to_choose_from() -> None:
    def pick(x: Tensor, i: Tensor) -> Tensor:
        return x.gather(0, i)

    with pytest.raises(OutOfRangeError, match=r"0 elements.*allowed are none"):
        jit(pick)(ROW[:0], torch.tensor([0]))
    assert jit(pick)(ROW[:0], torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.usefixtures("uncompiled")
def test_a_class_left_out_is_no_error() -> None:
    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(scores, labels)

    jitted = jit(loss)
    labels = torch.tensor([0, -100, 4, 2, 1])
    torch.testing.assert_close(jitted(SQUARE, labels), loss(SQUARE, labels))
    with pytest.raises(OutOfRangeError, match="Index -99 "):
        jitted(SQUARE, torch.where(labels < 0, -99, labels))


@pytest.mark.usefixtures("uncompiled")
def test_what_is_in_range_anyway_costs_nothing() -> None:
    def safe(x: Tensor, i: Tensor, key: random.Key) -> list[Tensor]:
        best, order = x.argmax(), torch.argsort(x)
        drawn = random.randint(key, 3, high=5)
        mixed = random.permutation(random.fold_in(key, 1), 5)[:3]
        rows = torch.arange(5)
        places = [best[None], order, order[i % 5], drawn, mixed, rows, rows[1:] - 1]
        places += [(x > 1).long(), i.clamp(0, 4), torch.zeros_like(i), torch.where(i > 0, drawn, 2)]
        return [x[each] for each in places]

    def unsafe(x: Tensor, i: Tensor) -> list[Tensor]:
        rows = torch.arange(5)
        places = [i, rows[:3] + i, i.clamp(min=0), i.clamp(max=4), i % 6, x.long(), rows * 2 // 2]
        return [x[each] for each in places]

    for fn, args, count in (safe, (ROW, GOOD, random.key(0)), 0), (unsafe, (ROW / 4, GOOD), 7):
        traced = trace(fn, args, lambda: ["x", "i", "key"])
        assert len(traced.checks.known) == count


def step(
    state: tuple[Tensor, Tensor], group: Tensor, effect: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Indices that are given, that are learnt, and that count."""
    x, count = state
    loss = effect[group].sum() + effect[(10 * x[:2]).long()].sum() + x.sum()
    return (x + 0.01, count + 1), loss + torch.arange(40.0)[count[None]].sum()


@pytest.fixture(scope="module")
def loop() -> Loop[tuple[Tensor, Tensor]]:
    """Its loop: compiled once."""
    return Loop(step)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "at", "count", "shift", "message"),
    [
        (0.0, 0, 30, 0, None),
        (-0.4, 35, 5, 0, None),  # the counter is at its last place
        (-0.4, 35, 6, 0, "Index 40 .*dimension of 40"),
        (0.0, -20, 60, 0, r"Index 5 .*\(10 \* x\[:2\]\)"),
        (-100.0, 0, 3, 0, "Index -1000 "),
        (0.0, 0, 30, 1, r"Index 5 .*effect\[group\]"),
        (0.0, 0, 1, 10**9, "Index 1000000004 "),
    ],
)
def test_in_a_loop(
    loop: Loop[tuple[Tensor, Tensor]],
    start: float,
    at: int,
    count: int,
    shift: int,
    message: str | None,
) -> None:
    """Whatever the index follows from; a step that is not taken is not looked at."""
    state = torch.full((3,), start), torch.tensor(at)
    group = torch.arange(20) % 5 + shift

    def run() -> Iterator[Tensor]:
        for block in loop.blocks(state, count, 0, (group, ROW), {}):
            yield block.recorded

    if message is not None:
        with pytest.raises(OutOfRangeError, match=message):
            list(run())
        return
    losses, now = [], state
    for _ in range(count):
        now, loss = step(now, group, ROW)
        losses.append(loss)
    torch.testing.assert_close(torch.cat(list(run())), torch.stack(losses))


def model(group: Tensor, y: Tensor) -> None:
    effect = pyro.sample("effect", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
    with pyro.plate("rows", len(group)):
        pyro.sample("y", dist.Normal(effect[group], 1.0), obs=y)


@pytest.mark.usefixtures("uncompiled")
def test_a_run_and_a_step(key: random.Key) -> None:
    group, y = torch.arange(20) % 5, torch.linspace(-1.0, 1.0, 20)
    svi = SVI(model, AutoNormal(model), torchopt.adam(0.1), compiled=True, progress_bar=False)
    state = svi.run(key, 3, group, y).state
    group[7] = 5
    with pytest.raises(OutOfRangeError, match=r"effect\[group\]"):
        svi.run_from(state, 3, group, y)
    with pytest.raises(OutOfRangeError, match=r"effect\[group\]"):
        jit(svi.step)(state, group, y)
    likely = attrs.evolve(svi, compiled=None)  # which goes on in eager mode, but not from here
    with pytest.raises(OutOfRangeError, match=r"effect\[group\]"):
        likely.run_from(state, 1_000, group, y)
    group[7] = 4
    assert svi.run_from(state, 3, group, y).losses.isfinite().all()
