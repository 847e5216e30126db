"""`keyed`: torch's own random calls from a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from purepyro import random
from purepyro.random._constants import CALLS
from purepyro.random._mode import DrawingFrom
from purepyro.random._primitives._composites import COMPOSITES, REPLACED, unchecked
from purepyro.random._primitives._table import KEYED
from purepyro.random._source import KeySource

Draw = Callable[[], Tensor]


class Call(NamedTuple):
    """A random call, and whether it may run under vmap over keys."""

    label: str
    draw: Draw
    maps: bool = True


def _attention(dropout: float) -> Tensor:
    query = torch.arange(24.0).reshape(1, 2, 3, 4) / 10
    return functional.scaled_dot_product_attention(query, query, query, dropout_p=dropout)


def _private(name: str) -> Callable[[Tensor], Tensor]:
    function: Callable[[Tensor], Tensor] = getattr(torch, name)
    return function


ONES = torch.ones(5)
PROBS = torch.tensor([0.1, 0.5, 0.2, 0.9])
IMAGE = torch.ones(2, 3, 4)
RAMP = torch.arange(800.0).reshape(2, 20, 20)
CALLS_OF_TORCH = [
    Call("rand", lambda: torch.rand(5)),
    Call("rand-tuple", lambda: torch.rand((2, 3), dtype=torch.float64)),
    Call("rand-size", lambda: torch.rand(size=(2, 3))),
    Call("randn", lambda: torch.randn(2, 3)),
    Call("rand_like", lambda: torch.rand_like(ONES)),
    Call("randn_like", lambda: torch.randn_like(ONES, dtype=torch.float64)),
    Call("randint", lambda: torch.randint(7, (5,))),
    Call("randint-bounds", lambda: torch.randint(-3, 7, (5,))),
    Call("randint-named", lambda: torch.randint(low=2, high=7, size=(5,), dtype=torch.int32)),
    Call("randint_like", lambda: torch.randint_like(ONES, 4)),
    Call("randint_like-bounds", lambda: torch.randint_like(ONES, -4, 4)),
    Call("randperm", lambda: torch.randperm(9)),
    Call("normal", lambda: torch.normal(ONES, 2.0)),
    Call("normal-std", lambda: torch.normal(1.0, ONES)),
    Call("normal-both", lambda: torch.normal(ONES, ONES)),
    Call("normal-size", lambda: torch.normal(1.0, 2.0, (3,))),
    Call("bernoulli", lambda: torch.bernoulli(PROBS)),
    Call("Tensor.bernoulli", lambda: ONES.bernoulli(0.5)),
    Call("multinomial", lambda: torch.multinomial(PROBS, 3)),
    Call("multinomial-rows", lambda: torch.multinomial(PROBS.expand(2, 4), 9, replacement=True)),
    Call("poisson", lambda: torch.poisson(PROBS * 30)),
    Call("binomial", lambda: torch.binomial(torch.full((4,), 30.0), PROBS)),
    Call("_standard_gamma", lambda: _private("_standard_gamma")(PROBS)),
    Call("_sample_dirichlet", lambda: _private("_sample_dirichlet")(PROBS)),
    Call("normal_", lambda: torch.empty(5).normal_(1.0, 2.0)),
    Call("uniform_", lambda: torch.empty(5).uniform_(-1, 1)),
    Call("exponential_", lambda: torch.empty(5).exponential_(2.0)),
    Call("cauchy_", lambda: torch.empty(5).cauchy_(1.0, 2.0)),
    Call("log_normal_", lambda: torch.empty(5).log_normal_()),
    Call("geometric_", lambda: torch.empty(5).geometric_(0.3)),
    Call("bernoulli_", lambda: torch.empty(5).bernoulli_(0.3)),
    Call("bernoulli_-tensor", lambda: torch.empty(4).bernoulli_(PROBS)),
    Call("random_", lambda: torch.empty(5).random_()),
    Call("random_-to", lambda: torch.empty(5, dtype=torch.int64).random_(9)),
    Call("random_-bounds", lambda: torch.empty(5, dtype=torch.int32).random_(-9, 9)),
    Call("dropout", lambda: functional.dropout(ONES)),
    Call("torch.dropout", lambda: torch.dropout(ONES, 0.5, True)),
    Call("alpha_dropout", lambda: functional.alpha_dropout(ONES, 0.5, True)),
    Call("feature_alpha_dropout", lambda: functional.feature_alpha_dropout(IMAGE, 0.5, True)),
    Call("dropout1d", lambda: functional.dropout1d(IMAGE)),
    Call("dropout2d", lambda: functional.dropout2d(IMAGE[None])),
    Call("dropout3d", lambda: functional.dropout3d(IMAGE[None, None])),
    Call("native_dropout", lambda: torch.native_dropout(ONES, 0.5, True)[0]),
    Call("rrelu", lambda: functional.rrelu(-ONES, training=True)),
    Call("gumbel_softmax", lambda: functional.gumbel_softmax(PROBS)),
    Call("attention", lambda: _attention(0.5)),
    Call("fractional_pool", lambda: functional.fractional_max_pool2d(RAMP, 2, 5), maps=False),
    Call("svd_lowrank", lambda: torch.svd_lowrank(torch.eye(4))[0], maps=False),
    Call("kaiming_uniform_", lambda: torch.nn.init.kaiming_uniform_(torch.empty(2, 3))),
    Call("xavier_normal_", lambda: torch.nn.init.xavier_normal_(torch.empty(2, 3)), maps=False),
    Call("init.normal_", lambda: torch.nn.init.normal_(torch.empty(2, 3))),
    Call("init.uniform_", lambda: torch.nn.init.uniform_(torch.empty(2, 3))),
]
each_call = pytest.mark.parametrize("call", CALLS_OF_TORCH, ids=lambda call: call.label)


@pytest.fixture
def untouched() -> Iterator[None]:
    """The global generator is as it was."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def _two(key: random.Key) -> tuple[random.Key, random.Key]:
    return random.fold_in(key, 0), random.fold_in(key, 1)


def _under(key: Tensor, fn: Draw) -> Tensor:
    with random.keyed(random.Key(key)):
        return fn()


@each_call
@pytest.mark.usefixtures("untouched")
def test_a_call_is_a_function_of_the_key(call: Call, key: random.Key) -> None:
    first, second = _under(key, call.draw), _under(key, call.draw)
    assert torch.equal(first, second)
    others = [_under(one, call.draw) for one in random.split(key, 8)]
    assert any(not torch.equal(first, other) for other in others)
    with torch.random.fork_rng():
        plain = call.draw()
    assert (first.shape, first.dtype) == (plain.shape, plain.dtype)


@each_call
@pytest.mark.usefixtures("untouched")
def test_a_call_under_vmap_is_a_loop(call: Call, key: random.Key) -> None:
    if not call.maps:
        pytest.skip("not legal under vmap whatever the random call does")
    keys = random.split(key, 4)
    loop = torch.stack([_under(one, call.draw) for one in keys])
    assert torch.equal(torch.vmap(lambda one: _under(one, call.draw))(keys), loop)


def test_calls_draw_from_keys_of_their_own(key: random.Key) -> None:
    with random.keyed(key):
        first, second, third = torch.randn(3), torch.rand(3), torch.randn(3)
    assert torch.equal(first, random.normal(key, 3))
    assert torch.equal(second, random.uniform(random.fold_in(key, CALLS + 1), 3))
    assert torch.equal(third, random.normal(random.fold_in(key, CALLS + 2), 3))


def test_parameters_may_be_batched(key: random.Key) -> None:
    rates = torch.tensor([0.5, 30.0, 200.0])
    keys = random.split(key, 3)
    mapped = torch.vmap(lambda one, rate: _under(one, lambda: torch.poisson(rate)))(keys, rates)
    loop = [_under(one, lambda: torch.poisson(rate)) for one, rate in zip(keys, rates, strict=True)]  # noqa: B023
    assert torch.equal(mapped, torch.stack(loop))


def test_in_place_calls_write(key: random.Key) -> None:
    with random.keyed(key):
        target = torch.zeros(2, 3)
        assert target.normal_() is target
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.trunc_normal_(layer.weight)
        torch.nn.init.orthogonal_(layer.weight)
        out = torch.empty(0)
        torch.randn(3, out=out)
        assert torch.rand(2, requires_grad=True).requires_grad
    assert torch.equal(target.flatten(), random.normal(key, 6))
    assert out.shape == (3,)
    torch.testing.assert_close(layer.weight @ layer.weight.mT, torch.eye(2))


def test_a_shared_buffer_under_vmap_gives_a_new_tensor(key: random.Key) -> None:
    buffer = torch.zeros(3)
    keys = random.split(key, 2)
    found = torch.vmap(lambda one: _under(one, lambda: buffer.normal_()))(keys)
    assert torch.equal(found, random.normal(keys, 2, 3))
    assert torch.equal(buffer, torch.zeros(3))
    batched = torch.zeros(2, 3)
    torch.vmap(lambda one, each: _under(one, lambda: each.normal_()))(keys, batched)
    assert torch.equal(batched, random.normal(keys, 2, 3))


def test_modules_draw_from_the_key(key: random.Key) -> None:
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
    x = torch.ones(2, 3, 4)
    before = torch.get_rng_state()
    first, second = _under(key, lambda: layer(x)), _under(key, lambda: layer(x))
    assert torch.equal(first, second)
    assert not torch.equal(first, _under(random.fold_in(key, 1), lambda: layer(x)))
    assert torch.equal(torch.get_rng_state(), before)
    layer.eval()
    torch.testing.assert_close(_under(key, lambda: layer(x)), layer(x))


def test_dropout_honours_its_arguments(key: random.Key) -> None:
    x = torch.ones(1000, requires_grad=True)
    with random.keyed(key):
        assert torch.equal(functional.dropout(x, training=False), x)
        assert torch.equal(functional.dropout(x, 0.0), x)
        assert torch.equal(functional.dropout(x, 1.0), torch.zeros(1000))
        kept = functional.dropout(x, 0.25)
    assert abs(int((kept > 0).sum()) - 750) < 60  # 4.4 standard deviations
    torch.testing.assert_close(kept[kept > 0], torch.full((int((kept > 0).sum()),), 4 / 3))
    (slope,) = torch.autograd.grad(kept.sum(), x)
    assert torch.equal(slope, kept.detach())
    mapped = torch.func.grad(lambda x: _under(key, lambda: functional.dropout(x, 0.25)).sum())(x)
    assert torch.equal(mapped, _under(key, lambda: functional.dropout(torch.ones(1000), 0.25)))


def test_dropout_in_place(key: random.Key) -> None:
    x = torch.ones(50)
    with random.keyed(key):
        assert functional.dropout(x, inplace=True) is x
    assert set(x.tolist()) == {0.0, 2.0}


def test_channels_are_dropped_whole(key: random.Key) -> None:
    with random.keyed(key):
        found = functional.dropout2d(torch.ones(8, 8, 3, 3))
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
    assert set(found.flatten().tolist()) == {0.0, 2.0}


def test_alpha_dropout_keeps_mean_and_variance(key: random.Key) -> None:
    """400,000 normal numbers: the mean is within 6 standard errors, the variance within 2 %."""
    first, second = _two(key)
    x = functional.selu(random.normal(first, 400_000))
    found = _under(second, lambda: functional.alpha_dropout(x, 0.3, True))
    assert abs(found.mean() - x.mean()) < 6 / 400_000**0.5
    assert abs(found.var() / x.var() - 1) < 0.02


def test_attention_without_dropout_is_that_of_torch(key: random.Key) -> None:
    torch.testing.assert_close(_under(key, lambda: _attention(0.0)), _attention(0.0))
    mean = torch.stack([_under(one, lambda: _attention(0.2)) for one in random.split(key, 400)])
    torch.testing.assert_close(mean.mean(0), _attention(0.0), rtol=0.2, atol=0.1)


@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
def test_attention_under_vmap_is_that_of_torch(mask: str, key: random.Key) -> None:
    """Also where the last query may look at nothing: torch gives zeros then."""
    query = random.normal(key, 3, 2, 4, 8)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril()
    allowed[-1] = False
    given = {"bool": allowed, "float": torch.zeros(4, 4).masked_fill(~allowed, -torch.inf)}

    def attend(query: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            query, query, query, given.get(mask), is_causal=mask == "causal"
        )

    found = _under(key, lambda: torch.vmap(attend)(query))
    torch.testing.assert_close(found, torch.stack([attend(one) for one in query]))
    slope = torch.func.grad(lambda one: attend(one).sum())
    assert torch.isfinite(_under(key, lambda: torch.vmap(slope)(query))).all()


def test_recurrent_dropout_draws_from_the_key(key: random.Key) -> None:
    """Of 40,000 units between two layers a half is dropped: within 4 standard errors."""
    layer = torch.nn.RNN(1, 1, num_layers=2, dropout=0.5, nonlinearity="relu", bias=False)
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            weight.fill_(float("ih" in name))
    x = torch.ones(1, 40_000, 1)
    first, again = (_under(key, lambda: layer(x)[0]) for _ in range(2))
    assert torch.equal(first, again)
    assert set(first.flatten().tolist()) == {0.0, 2.0}
    assert abs(first.mean() - 1) < 4 / 40_000**0.5
    layer.eval()
    assert torch.equal(_under(key, lambda: layer(x)[0]), x)


def test_a_packed_sequence_with_dropout_is_refused(key: random.Key) -> None:
    layer = torch.nn.LSTM(2, 3, num_layers=2, dropout=0.5)
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(4, 2), torch.ones(3, 2)])
    with random.keyed(key), pytest.raises(NotImplementedError, match=r"PackedSequence and drops"):
        layer(packed)
    with random.keyed(key):
        layer.eval()(packed)


def test_generators_are_refused(key: random.Key) -> None:
    generator = torch.Generator()
    calls: list[Draw] = [
        lambda: torch.randn(3, generator=generator),
        lambda: torch.empty(3).normal_(generator=generator),
        lambda: torch.nn.init.normal_(torch.empty(3), generator=generator),
    ]
    for call in calls:
        with random.keyed(key), pytest.raises(ValueError, match=r"`generator` inside a keyed"):
            call()
        with random.keyed(key):
            torch.randn(3, generator=None)


def test_blocks_nest_and_end(key: random.Key) -> None:
    first, second = _two(key)
    with random.keyed(first):
        torch.randn(1)
        with random.keyed(second), torch.no_grad():
            inner = torch.randn(2)
        outer = torch.randn(2)
    assert torch.equal(inner, random.normal(second, 2))
    assert torch.equal(outer, random.normal(random.fold_in(first, CALLS + 1), 2))
    with pytest.raises(ZeroDivisionError), random.keyed(first):
        raise ZeroDivisionError
    torch.manual_seed(0)
    plain = torch.randn(2)
    torch.manual_seed(0)
    assert torch.equal(torch.randn(2), plain)


def test_draw_points_the_block_elsewhere_for_the_time(key: random.Key) -> None:
    first, second = _two(key)
    with random.keyed(first) as mode:
        torch.randn(1)
        with DrawingFrom(KeySource(second)):
            assert torch.equal(torch.randn(2), random.normal(second, 2))
        with pytest.raises(ZeroDivisionError), DrawingFrom(KeySource(second)):
            raise ZeroDivisionError
        outer = torch.randn(2)
        assert not mode.invariant
    assert torch.equal(outer, random.normal(random.fold_in(first, CALLS + 1), 2))
    with DrawingFrom(KeySource(second)):
        assert torch.equal(torch.randn(2), random.normal(second, 2))


def test_a_default_device_or_dtype_is_honoured(key: random.Key) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with random.keyed(key):
            assert torch.rand(3).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"), random.keyed(key):
        assert torch.ones(2).device.type == "meta"


def test_no_random_function_of_torch_is_missed() -> None:
    """Python functions that call something random inside are all known."""
    names = {name.rsplit(".", 1)[-1] for name in map(_name, KEYED)}
    for functions in torch.overrides.get_overridable_functions().values():
        for function in functions:
            if isinstance(function, FunctionType) and names & {*function.__code__.co_names}:
                known = function in COMPOSITES or function in REPLACED
                assert known or function.__name__ in _HARMLESS, function


def _name(function: object) -> str:
    return str(getattr(function, "__name__", ""))


# These mention a name of the list, such as `normal`, without drawing.
_HARMLESS: set[str] = set()


def test_copies_of_composites_keep_their_signature() -> None:
    for function in COMPOSITES:
        copy = unchecked(function)
        assert getattr(copy, "__code__", None) is function.__code__
        assert unchecked(function) is copy
