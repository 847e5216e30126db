"""Philox as a C++ function gives the bits of the same in operations of torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from purepyro._compile.inductor import _cpp_philox, _inductor
from purepyro.random._bits._philox_operators import OPERATOR, ROUNDS, Kind, Result, expanded

# Seeds with their top bit set, offsets at the ends of their range: sums carry and wrap.
KEYS = torch.tensor([[-(2**63) + 12345, -3], [7, 2**32 - 9], [-1, 2**63 - 1]])
INDEX = torch.tensor([0, 1, 2**32 - 1, 2**63 - 1, -1])


def keys_and_indices(keys: Tensor, index: Tensor) -> list[tuple[Tensor, Tensor]]:
    """One key and many, in rows, in planes, expanded and as they lie under two vmaps."""
    long = torch.arange(1_000)
    planes = keys.mT.contiguous().mT
    return [
        (keys[0], index),
        (keys[0], long),
        (keys[1], index[:1]),
        (keys, index),
        (planes, long[:35]),
        (keys[:, None].expand(3, 4, 2), index),
        (keys[:, None, None], index[:4, None, None] + long[:2]),
        (planes[:2], long[:34].view(17, 2).mT),
        (keys.flip(0)[::2], long[::3]),
        (keys, index[:0]),
        (keys[:0], index),
    ]


def draws(keys: Tensor, index: Tensor) -> list[Tensor]:
    """All kinds of draws from all of them."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    return [OPERATOR(*each, kind) for each in keys_and_indices(keys, index) for kind in kinds]


def plain(keys: Tensor, index: Tensor) -> list[Tensor]:
    kinds: tuple[Kind, ...] = get_args(Kind)
    return [expanded(*each, kind) for each in keys_and_indices(keys, index) for kind in kinds]


@pytest.fixture
def operations() -> Iterator[list[object]]:
    """What graphs consist of when Inductor gets them, in this test."""
    found: list[object] = []
    lowered = _cpp_philox.lowered

    def note(key: object, index: object, result: Result) -> object:
        found.append(result)
        return lowered(key, index, result)

    lowerings: Any = _inductor._inductor().lowering.lowerings
    before = lowerings[ROUNDS]
    lowerings[ROUNDS] = note
    yield found
    lowerings[ROUNDS] = before


@pytest.mark.compiled
@pytest.mark.slow
def test_every_kind_of_draw_from_keys_that_lie_anyhow(operations: list[object]) -> None:
    module = make_fx(draws)(KEYS, INDEX)
    config: Any = _inductor._inductor().config
    with config.patch(force_disable_caches=True):
        found = _inductor.inductor(module, [KEYS, INDEX], "draws")(KEYS, INDEX)
    assert set(operations) == set(get_args(Result))
    for one, other in zip(found, plain(KEYS, INDEX), strict=True):
        if one.is_floating_point():  # a logarithm's last bit is the compiler's
            torch.testing.assert_close(one, other)
        else:
            assert torch.equal(one, other)


@pytest.mark.compiled
def test_the_function_gives_our_bits() -> None:
    with _inductor._set({"cpp.vec_isa_ok": True}):
        assert _cpp_philox._gives_our_bits()


def fail() -> bool:
    raise RuntimeError("no such compiler")


@pytest.mark.parametrize(
    ("check", "said"), [(fail, "no such compiler"), (lambda: False, "other bits")]
)
def test_without_the_function_philox_is_spelled_out(
    check: Callable[[], bool],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_cpp_philox, "_gives_our_bits", check)
    _cpp_philox._works.cache_clear()
    try:
        with caplog.at_level(logging.INFO, "purepyro.jit"), _cpp_philox.as_a_function():
            module = make_fx(lambda key, index: _cpp_philox.decomposed(key, index, "normals"))(
                KEYS, INDEX
            )
            _cpp_philox.decomposed(KEYS, INDEX, "keys")
    finally:
        _cpp_philox._works.cache_clear()
    assert [record for record in caplog.messages if said in record] == caplog.messages
    assert len(caplog.messages) == 1
    assert ROUNDS not in [node.target for node in module.graph.nodes]


def test_on_other_devices_philox_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpp_philox, "_works", lambda: True)
    seen = []
    for device in "cpu", "meta":
        with _cpp_philox.as_a_function():
            module = make_fx(lambda key, index: _cpp_philox.decomposed(key, index, "keys"))(
                KEYS.to(device), INDEX.to(device)
            )
        seen.append(ROUNDS in [node.target for node in module.graph.nodes])
    assert seen == [True, False]
