"""Bits, bounded integers and permutations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purepyro import random
from purepyro.random._bits._bounded import remainder

DTYPES = [
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


@given(word=st.integers(0, 2**64 - 1), width=st.integers(1, 2**64 - 1) | st.integers(1, 2**33))
def test_remainders_of_unsigned_words(word: int, width: int) -> None:
    signed = word - 2**64 if word >= 2**63 else word
    assert int(remainder(torch.tensor(signed), width)) % 2**64 == word % width


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_low_bits_of_the_words(key: random.Key, dtype: torch.dtype) -> None:
    found = random.bits(key, 9, dtype=dtype)
    assert found.dtype == dtype
    width = 8 * dtype.itemsize
    if width == 64:
        halves = random.bits(key, 18, dtype=torch.uint32).tolist()
        words = [high << 32 | low for high, low in zip(halves[::2], halves[1::2], strict=True)]
    else:
        words = random.bits(key, 9, dtype=torch.uint32).tolist()
    assert [bits % 2**width for bits in found.tolist()] == [word % 2**width for word in words]
    assert torch.equal(random.randint(key, 9, low=None, dtype=dtype), found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 10), (3, 100), (0, 128)])
def test_integers_lie_between_their_bounds(
    key: random.Key, dtype: torch.dtype, low: int, high: int
) -> None:
    found = random.randint(key, 500, low=low, high=high, dtype=dtype).to(torch.int64)
    assert found.min() >= low
    assert found.max() < high
    if high - low <= 10:
        assert len(set(found.tolist())) == high - low


def test_wide_ranges_take_64_bits(key: random.Key) -> None:
    wide = random.randint(key, 100, low=-(2**62), high=2**63, dtype=torch.int64)
    assert wide.min() >= -(2**62)
    assert wide.max() > 2**62
    with pytest.raises(ValueError, match=r"`high - low` is 1000000000.*`dtype=torch\.int64`"):
        random.randint(key, 3, high=10**9)
    assert random.randint(key, 3, high=2**30).dtype == torch.int32


def test_ranges_that_cannot_be(key: random.Key) -> None:
    with pytest.raises(ValueError, match=r"`high` is 3 and `low` is 3"):
        random.randint(key, 3, low=3, high=3)
    with pytest.raises(ValueError, match=r"outside the range \[-128, 128\)"):
        random.randint(key, 3, high=129, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"`dtype` is torch\.float32.*integer dtype"):
        random.bits(key, 3, dtype=torch.float32)


def test_integers_are_uniform(key: random.Key) -> None:
    """Chi-square of 60,000 draws in 6 classes; its 0.999 quantile for 5 degrees is 20.5."""
    for dtype in (torch.int32, torch.int64):
        counts = torch.bincount(random.randint(key, 60_000, high=6, dtype=dtype))
        assert ((counts - 10_000) ** 2 / 10_000).sum() < 20.5


@given(n=st.integers(0, 60), seed=st.integers(0, 2**64 - 1))
def test_a_permutation_is_one(n: int, seed: int) -> None:
    found = random.permutation(random.key(seed), n)
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == list(range(n))


def test_permutations_are_uniform(key: random.Key) -> None:
    """All 24 orders of 4, 24,000 draws; the 0.999 quantile for 23 degrees is 49.7."""
    orders = torch.vmap(lambda one: random.permutation(one, 4))(random.split(key, 24_000))
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(-1)
    counts = torch.unique(code, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 49.7
