"""torch's kernels are used where they agree, and silently not where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from purepyro import random
from purepyro.random._bits import _native, _words

CPU = torch.device("cpu")


class Kernels(ModuleType):
    """Kernels as torch 2.15 has them, made of our own words."""

    def __init__(self, *, off_by: int = 0, missing: bool = False) -> None:
        super().__init__("kernels")
        self.off_by = off_by
        self.missing = missing
        self.calls = 0

    def bits(self, key: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
        pairs = self._pairs(key, shape)
        if dtype == torch.int64:
            found = _words._host_wide_words(pairs, shape[-1]).view(np.int64)
        else:
            found = _words._host_words(pairs, shape[-1]).astype(np.int64)
        return torch.from_numpy(found).reshape(shape).to(dtype) + self.off_by

    def uniform(self, key: Tensor, *shape: int, dtype: torch.dtype) -> Tensor:
        found = _words._host_uniforms(self._pairs(key, shape), shape[-1], dtype).reshape(shape)
        return found + self.off_by

    def _pairs(self, key: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        assert key.dtype == torch.uint64
        assert key.dim() in (1, len(shape) + 1)
        self.calls += 1
        if self.missing:
            raise NotImplementedError("no kernel for this device")
        return key.numpy().reshape(-1, 2)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    _native.usable.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    _native.usable.cache_clear()


@pytest.mark.parametrize("kind", ["bits", "uniform"])
def test_kernels_that_agree_are_found_out(kind: str) -> None:
    assert _native.agrees(Kernels(), CPU, kind)
    assert not _native.agrees(Kernels(off_by=1), CPU, kind)
    assert not _native.agrees(Kernels(missing=True), CPU, kind)
    assert not _native.agrees(ModuleType("empty"), CPU, kind)


def test_uniforms_are_taken_from_kernels_without_integers(
    fresh: pytest.MonkeyPatch, key: random.Key
) -> None:
    ours = random.uniform(key, 5), random.normal(key, 5)
    kernels = Kernels()
    fresh.setattr(Kernels, "bits", None)  # as in torch 2.14
    fresh.setattr(_native, "KERNELS", kernels)
    _native.usable.cache_clear()
    assert torch.equal(random.uniform(key, 5), ours[0])
    assert kernels.calls > 0
    assert torch.equal(random.normal(key, 5), ours[1])


def test_kernels_that_agree_are_used(fresh: pytest.MonkeyPatch, key: random.Key) -> None:
    def draws(one: random.Key) -> list[Tensor]:
        return [
            random.uniform(one, 5),
            random.uniform(one, 5, dtype=torch.float64),
            random.normal(one, 5),
            random.normal(one, 5, dtype=torch.float64),
            random.bits(one, 5, dtype=torch.int64),
            random.randint(one, 5, high=7),
        ]

    stack = random.split(key, 5)
    ours = [*draws(key), *draws(stack)]
    mapped = torch.vmap(lambda one: random.normal(one, 5))(stack)
    kernels = Kernels()
    fresh.setattr(_native, "KERNELS", kernels)
    _native.usable.cache_clear()
    theirs = [*draws(key), *draws(stack)]
    assert kernels.calls > 8
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    loop = torch.stack([random.normal(random.Key(one), 5) for one in stack])
    assert torch.equal(mapped, loop)


def test_kernels_are_left_alone_under_transforms(
    fresh: pytest.MonkeyPatch, key: random.Key
) -> None:
    kernels = Kernels()
    fresh.setattr(_native, "KERNELS", kernels)
    _native.usable.cache_clear()
    random.uniform(key, 1)
    before = kernels.calls
    torch.vmap(lambda one: random.normal(one, 5))(key[None])
    assert kernels.calls == before


def test_what_this_torch_has_is_used(key: random.Key) -> None:
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert (_native.native(key, "uniform") is not None) == (release >= (2, 14))
    assert (_native.native(key, "bits") is not None) == (release >= (2, 15))
    assert random.uniform(key, 3).shape == (3,)
