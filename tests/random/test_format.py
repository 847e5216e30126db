"""The format: the words of Philox, and the numbers that torch makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import random
from purepyro.random._bits import _host, _philox_operators, _words
from purepyro.random._bits._shape import Plan

WORDS = st.integers(0, 2**64 - 1)


class Vector(TypedDict):
    seed: int
    key: list[int]
    split3: list[int]
    fold_in: dict[str, list[int]]
    uniform10: list[float]
    uniform10_f64: list[float]
    normal10: list[float]
    normal10_f64: list[float]
    normal_3x5: list[float]
    normal10_of_split1: list[float]
    fold_in_of_split2: list[int]
    batched_normal_4x6: list[float]


VECTORS: list[Vector] = json.loads((Path(__file__).parent / "torch_2_15_vectors.json").read_text())[
    "cases"
]
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["seed"]))

# Salmon et al., Random123 1.14, kat_vectors: philox4x32 of 10 rounds. Counter, key, result. Words 2
# and 3 of our counters are zero, so the first is the one that applies to `block` as it stands.
ZERO_BLOCK = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@each_vector
def test_keys_have_the_bits_of_torch(vector: Vector) -> None:
    key = random.key(vector["seed"])
    assert key.tolist() == vector["key"]
    assert random.split(key, 3).flatten().tolist() == vector["split3"]
    for data, words in vector["fold_in"].items():
        assert random.fold_in(key, int(data)).tolist() == words
        assert random.fold_in(key, torch.tensor(int(data))).tolist() == words
    third = random.Key(random.split(key, 3)[2])
    assert random.fold_in(third, 5).tolist() == vector["fold_in_of_split2"]


@each_vector
def test_uniforms_have_the_bits_of_torch(vector: Vector) -> None:
    key = random.key(vector["seed"])
    single = torch.tensor(vector["uniform10"])
    double = torch.tensor(vector["uniform10_f64"], dtype=torch.float64)
    assert torch.equal(random.uniform(key, 10), single)
    assert torch.equal(random.uniform(key, 10, dtype=torch.float64), double)


@each_vector
def test_normals_are_those_of_torch_to_rounding(vector: Vector) -> None:
    key = random.key(vector["seed"])

    def close(found: Tensor, wanted: list[float], eps: float) -> None:
        expected = torch.tensor(wanted, dtype=found.dtype)
        torch.testing.assert_close(found.flatten(), expected, rtol=4 * eps, atol=4 * eps)

    close(random.normal(key, 10), vector["normal10"], 2.0**-23)
    close(random.normal(key, 3, 5), vector["normal_3x5"], 2.0**-23)
    close(random.normal(key, 10, dtype=torch.float64), vector["normal10_f64"], 2.0**-52)
    close(random.normal(random.fold_in(key, 1), 10), vector["normal10_of_split1"], 2.0**-23)
    keys = random.Key(random.split(key, 4)[:, None])
    close(random.normal(keys, 4, 6), vector["batched_normal_4x6"], 2.0**-23)


def test_random123_known_answer() -> None:
    assert _host.block(0, 0) == ZERO_BLOCK
    lanes = _philox_operators.blocks(random.key(0), 1, "words")
    assert tuple(lanes.flatten().tolist()) == ZERO_BLOCK


@given(seed=WORDS, offset=WORDS, count=st.integers(1, 9))
def test_three_ways_to_the_same_words(seed: int, offset: int, count: int) -> None:
    pair = np.array([[seed, offset]], dtype=np.uint64)
    plain = [_host.block(seed, (offset + i) % 2**64) for i in range(count)]
    even, odd = _host.blocks(np.tile(pair, (2, 1)), count)
    lanes = _philox_operators.blocks(torch.from_numpy(pair.view(np.int64))[0], count, "words")
    numpy = np.stack([even[0, 0], odd[0, 0], even[1, 0], odd[1, 0]], -1)
    assert numpy.tolist() == lanes.tolist() == [list(block) for block in plain]


@given(seed=WORDS, offset=WORDS, data=st.integers(-(2**63), 2**64 - 1))
def test_fold_in_wraps_around(seed: int, offset: int, data: int) -> None:
    pair = np.array([seed, offset], dtype=np.uint64).view(np.int64)
    key = random.Key(torch.from_numpy(pair))
    words = _host.block(seed, (offset + data) % 2**64)
    found = random.fold_in(key, data).numpy().view(np.uint32).tolist()
    mapped = torch.vmap(lambda one: random.fold_in(one, data))(key[None])[0]
    assert found == list(words)
    assert mapped.numpy().view(np.uint32).tolist() == list(words)


def test_split_is_fold_in(key: random.Key) -> None:
    keys = random.split(key, 5)
    assert keys.shape == (5, 2)
    for i in range(5):
        assert torch.equal(keys[i], random.fold_in(key, i))
    assert len({tuple(one) for one in random.split(key, 1000).tolist()}) == 1000


def test_split_and_fold_in_take_stacks(key: random.Key) -> None:
    keys = random.Key(random.split(key, 6).reshape(2, 3, 2))
    assert random.split(keys, 4).shape == (4, 2, 3, 2)
    data = torch.arange(3)
    folded = random.fold_in(keys, data)
    for i in range(2):
        for j in range(3):
            one = random.Key(keys[i, j])
            assert torch.equal(random.split(keys, 4)[:, i, j], random.split(one, 4))
            assert torch.equal(folded[i, j], random.fold_in(one, j))
    assert random.fold_in(random.Key(keys[0, 0]), data).shape == (3, 2)


def test_uint64_keys_are_taken(key: random.Key) -> None:
    raw = random.Key(key.view(torch.uint64))
    assert torch.equal(random.normal(raw, 5), random.normal(key, 5))
    assert random.split(raw).dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("draw", [random.uniform, random.normal], ids=["uniform", "normal"])
def test_a_short_draw_is_a_prefix_of_a_long_one(
    key: random.Key, draw: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    long = draw(key, 41, dtype=dtype)
    assert long.dtype == dtype
    for size in range(42):
        assert torch.equal(draw(key, size, dtype=dtype), long[:size])
    assert torch.equal(draw(key, (2, 0, 3), dtype=dtype), torch.zeros(2, 0, 3, dtype=dtype))
    assert draw(key, dtype=dtype).shape == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 31, 100, 1001])
def test_vmap_over_keys_is_a_loop_over_keys(key: random.Key, size: int, dtype: torch.dtype) -> None:
    keys = random.split(key, 7)

    def draws(one: random.Key) -> tuple[Tensor, ...]:
        return (
            random.uniform(one, size, dtype=dtype),
            random.normal(one, size, dtype=dtype),
            random.bits(one, size, dtype=torch.int64),
            random.randint(one, size, low=-3, high=1000),
            random.permutation(one, size),
            random.split(one, 3),
            random.fold_in(one, 12),
            random.name_key(one, "weight"),
        )

    mapped = torch.vmap(draws)(keys)
    for found, *each in zip(mapped, *(draws(random.Key(one)) for one in keys), strict=True):
        assert torch.equal(found, torch.stack(each))


def test_stacked_keys_draw_their_own_slices(key: random.Key) -> None:
    keys = random.split(key, 4)
    rows = torch.stack([random.normal(random.Key(one), 3, 5) for one in keys])
    assert torch.equal(random.normal(keys, 4, 3, 5), rows)
    assert torch.equal(random.normal(random.Key(keys[:, None, None]), 4, 3, 5), rows)
    each = torch.stack([random.normal(random.Key(one)) for one in keys])
    assert torch.equal(random.normal(keys, 4), each)
    shared = random.normal(random.Key(keys[None]), 2, 4)
    assert torch.equal(shared, each.expand(2, 4))


def test_stacked_keys_that_do_not_fit(key: random.Key) -> None:
    with pytest.raises(ValueError, match=r"int64\[4, 2\] and the shape to draw is \[3, 5\]"):
        random.normal(random.split(key, 4), 3, 5)
    with pytest.raises(ValueError, match="must be the leading dimensions"):
        random.normal(random.split(key, 4))


def test_normals_from_whole_words_are_the_same(key: random.Key) -> None:
    """The way of devices with kernels for words, which this machine lacks."""
    for size in (1, 2, 5, 64):
        for dtype in (torch.float32, torch.float64):
            plan = Plan(key, size, (size,))
            assert torch.equal(_words._normals_of_words(plan, dtype), _words.normals(plan, dtype))
    keys = random.split(key, 3)
    plan = Plan(keys, 5, (3, 5))
    found = _words._normals_of_words(plan, torch.float32)
    assert torch.equal(found, _words.normals(plan, torch.float32))


def test_bounds_and_moments_are_applied_as_written(key: random.Key) -> None:
    uniform, normal = random.uniform(key, 9), random.normal(key, 9)
    assert torch.equal(random.uniform(key, 9, low=-1.0, high=3.0), uniform * 4.0 - 1.0)
    assert torch.equal(random.normal(key, 9, mean=2.0, std=0.5), normal * 0.5 + 2.0)
    std = torch.tensor(0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(random.normal(key, 9, std=std).sum(), std)
    torch.testing.assert_close(slope, normal.sum())


def test_numbers_need_a_floating_dtype(key: random.Key) -> None:
    with pytest.raises(ValueError, match=r"`dtype` is torch\.int64.*floating-point"):
        random.normal(key, 3, dtype=torch.int64)
