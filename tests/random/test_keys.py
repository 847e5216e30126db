"""What counts as a key, what is said to all else, and the check that none is used twice."""

from __future__ import annotations

import pickle
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purepyro import random
from purepyro._errors import (
    KeyReuseError,
    KeyTypeError,
    PurepyroError,
    ShapeError,
    SupportError,
)
from purepyro.random._derive import name_hash
from purepyro.random._key import check_key
from purepyro.random._reuse import consume


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, r"`key` is the integer 0.*an integer is a seed.*Write `random\.key\(0\)`"),
        (7, r"Write `random\.key\(7\)`"),
        (True, r"`key` is True, of type bool"),
        ("seed", r"`key` is 'seed', of type str.*int64 tensor of shape \(2,\)"),
        (torch.Generator(), r"torch\.Generator\. Its state changes with every draw"),
        (torch.zeros(2), r"`key` is float32\[2\].*two 64-bit words"),
        (torch.zeros(3, dtype=torch.int64), r"`key` is int64\[3\].*has shape \(2,\)"),
        (torch.tensor(1), r"`key` is int64\[\]"),
    ],
)
def test_what_is_no_key_is_told_so(value: object, message: str) -> None:
    with pytest.raises(KeyTypeError, match=rf"(?is){message}"):
        check_key(value)


def test_a_stack_is_refused_where_one_key_is_wanted(key: random.Key) -> None:
    keys = random.split(key, 3)
    assert check_key(keys) is keys
    for refused in (
        lambda: check_key(keys, "key", single=True),
        lambda: random.permutation(keys, 3),
        lambda: random.keyed(keys),
        lambda: random.sample(keys, torch.distributions.Normal(0.0, 1.0)),
    ):
        with pytest.raises(KeyTypeError, match=r"int64\[3, 2\], a stack.*Use `torch\.vmap`"):
            refused()


def test_key_errors_are_also_builtin_ones() -> None:
    assert issubclass(KeyTypeError, TypeError)
    assert issubclass(KeyTypeError, PurepyroError)
    assert issubclass(KeyReuseError, RuntimeError)


@pytest.mark.parametrize("seed", [1.5, True, "1", None])
def test_a_seed_is_an_integer(seed: object) -> None:
    with pytest.raises(KeyTypeError, match=r"`seed` is .*Write `random\.key\(0\)`"):
        random.key(seed)  # type: ignore[arg-type]


@given(st.integers())
def test_no_two_seeds_give_one_key(seed: int) -> None:
    if 0 <= seed < 2**64:
        assert random.key(seed).view(torch.uint64).tolist() == [seed, 0]
    else:
        with pytest.raises(SupportError, match=rf"`seed` is {seed}.*random\.key\(seed % 2\*\*64\)"):
            random.key(seed)
        random.key(seed % 2**64)


@given(st.integers(-(2**70), 2**70))
def test_data_of_more_than_64_bits_is_not_folded_in(data: int) -> None:
    key = random.key(0)
    if -(2**63) <= data < 2**64:
        random.fold_in(key, data)
    else:
        with pytest.raises(SupportError, match=rf"`data` is {data}.*more than 64 bits"):
            random.fold_in(key, data)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int16])
def test_integers_of_numpy_are_integers(key: random.Key, kind: type[np.integer[Any]]) -> None:
    three = cast("int", kind(3))
    assert torch.equal(random.key(three), random.key(3))
    assert torch.equal(random.fold_in(key, three), random.fold_in(key, 3))
    assert torch.equal(random.split(key, three), random.split(key, 3))
    assert torch.equal(random.normal(key, three), random.normal(key, 3))
    assert torch.equal(random.normal(key, 2, three), random.normal(key, 2, 3))
    assert torch.equal(random.normal(key, (2, three)), random.normal(key, 2, 3))
    assert torch.equal(random.permutation(key, three), random.permutation(key, 3))
    assert torch.equal(random.randint(key, 5, high=three), random.randint(key, 5, high=3))
    with pytest.raises(KeyTypeError, match=r"`key` is the integer 3.*random\.key\(3\)"):
        check_key(three)


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ((-1,), "-1"),
        ((2, -1), "-1"),
        (((2, -3),), "-3"),
        ((2.0,), r"2\.0"),
        ((2, True), "True"),
        ((None,), "None"),
        ((torch.tensor(3),), r"int64\[\]"),
    ],
)
def test_a_shape_that_is_none(key: random.Key, shape: tuple[Any, ...], wrong: str) -> None:
    for draw in (random.normal, random.uniform, random.bits, random.randint):
        with pytest.raises(ShapeError, match=rf"The shape to draw is .*, and {wrong} is no size"):
            draw(key, *shape)
    normal = torch.distributions.Normal(0.0, 1.0)
    with pytest.raises(ShapeError, match=rf"and {wrong} is no size"):
        random.sample(key, normal, shape[0] if isinstance(shape[0], tuple) else shape)
    with random.keyed(key), pytest.raises((ShapeError, TypeError, RuntimeError)):
        torch.randn(-1)


def test_counts_that_make_no_sense(key: random.Key) -> None:
    with pytest.raises(ValueError, match=r"`num` is 0.*`random\.split\(key, 2\)`"):
        random.split(key, 0)
    with pytest.raises(ValueError, match=r"`n` is -1"):
        random.permutation(key, -1)
    for num in (1.5, True, -1):
        with pytest.raises(ShapeError, match=rf"`num` is {num}"):
            random.split(key, cast("int", num))
    for data in (1.5, True, torch.tensor(1.5), torch.tensor(True)):
        with pytest.raises(TypeError, match=r"`data` is .*`random\.fold_in\(key, i\)`"):
            random.fold_in(key, data)  # type: ignore[arg-type]


def test_names_have_hashes_that_never_change(key: random.Key) -> None:
    assert name_hash("weight") == 4787351827655473443
    assert name_hash("") >> 63 == 0
    assert torch.equal(random.name_key(key, "weight"), random.fold_in(key, name_hash("weight")))


def test_keys_are_plain_tensors(key: random.Key) -> None:
    assert torch.equal(pickle.loads(pickle.dumps(key)), key)


def test_reuse_is_an_error_that_names_the_first_use(key: random.Key) -> None:
    with random.forbid_reuse():
        random.normal(key, 3)
        with pytest.raises(KeyReuseError, match=r"`uniform` uses .*`normal` has used before"):
            random.uniform(key, 3)
        with pytest.raises(KeyReuseError, match=r"random\.split\(key\)"):
            random.split(key)
    random.uniform(key, 3)


def test_every_public_use_consumes(key: random.Key) -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    for use in (
        lambda: random.split(key),
        lambda: random.bits(key, 2),
        lambda: random.uniform(key, 2),
        lambda: random.normal(key, 2),
        lambda: random.randint(key, 2, high=3),
        lambda: random.permutation(key, 2),
        lambda: random.sample(key, normal),
        lambda: random.keyed(key),
        lambda: consume(key, "apply"),
    ):
        with random.forbid_reuse():
            use()
            with pytest.raises(KeyReuseError):
                consume(key, "another")


def test_derived_keys_and_derived_draws_are_free(key: random.Key) -> None:
    with random.forbid_reuse():
        first, second = (random.fold_in(key, i) for i in (10, 11))
        random.normal(first, 2)
        random.fold_in(first, 3)
        with random.keyed(second):
            torch.randn(2)
            torch.randn(2)
        random.sample(random.name_key(key, "a"), torch.distributions.Gamma(torch.ones(2), 1.0))
        keys = random.split(key, 3)
        random.normal(keys, 3)
        with pytest.raises(KeyReuseError):
            random.normal(random.Key(keys[1]), 3)


def test_reuse_under_transforms_passes(key: random.Key) -> None:
    def twice(one: random.Key) -> Tensor:
        return random.normal(one, 2) + random.normal(one, 2)

    with random.forbid_reuse():
        assert torch.vmap(twice)(random.Key(key[None])).shape == (1, 2)
    with random.forbid_reuse(), pytest.raises(KeyReuseError):
        torch.func.grad(lambda x, one: (x * twice(one)).sum())(torch.ones(2), key)


def test_a_plain_number_folds_into_batched_keys() -> None:
    keys, step = random.split(random.key(0), 3), torch.tensor(4)
    many = torch.vmap(lambda key: random.fold_in(random.Key(key), step))(keys)
    assert torch.equal(many, torch.stack([random.fold_in(key, 4) for key in keys]))
