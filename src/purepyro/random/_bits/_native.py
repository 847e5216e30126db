"""torch's own Philox kernels (`torch.func._random`), where they agree with ours bit for bit.

torch 2.13 has uniforms on CUDA, 2.14 on the CPU too, and 2.15 integers as well. Each is taken by
itself. Their normals equal ours to rounding only, and a draw in a loop would not equal the draw
under vmap, so ours are made of their integers.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from ..._compat._random import KERNELS
from ..._compat._transforms import is_tracing, is_wrapped, outside_transforms
from ..._compat._untyped import call, part
from . import _host

_SEED, _OFFSET = 7, 9


def native(keys: Tensor, kind: str) -> ModuleType | None:
    """The kernels to use for `keys`, or None: none there, or not to be used here.

    Args:
        keys: Where to draw from.
        kind: What to draw, "bits" or "uniform".
    """
    if KERNELS is None or is_tracing() or is_wrapped(keys) or type(keys) is not Tensor:
        return None
    return KERNELS if usable(keys.device, kind) else None


def uniforms(kernels: ModuleType, keys: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Uniform values (*lead, size) from keys (*lead, 2)."""
    return _drawn(part(kernels, "uniform"), keys, size, dtype)


def bits(kernels: ModuleType, keys: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Integers over the whole range of `dtype`, likewise."""
    return _drawn(part(kernels, "bits"), keys, size, dtype)


def _drawn(function: object, keys: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    words = keys.view(torch.uint64)
    with outside_transforms():
        if words.dim() == 1:
            return call(function, words, size, dtype=dtype)
        return call(function, words.unsqueeze(-2), *words.shape[:-1], size, dtype=dtype)


@cache
def usable(device: torch.device, kind: str) -> bool:
    """Whether there are kernels for a device that agree with ours."""
    return KERNELS is not None and agrees(KERNELS, device, kind)


def agrees(kernels: ModuleType, device: torch.device, kind: str) -> bool:
    """Whether the kernels work on a device and give our bits for a key whose words are known."""
    same = _same_words if kind == "bits" else _same_uniforms
    try:
        with outside_transforms():
            return same(kernels, device)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _same_words(kernels: ModuleType, device: torch.device) -> bool:
    narrow = bits(kernels, _keys(device), 7, torch.int32).tolist()
    wide = bits(kernels, _keys(device), 5, torch.int64).tolist()
    return all(
        [word % 2**32 for word in narrow[i]] == ours[:7]
        and [word % 2**64 for word in wide[i]] == _paired(ours)[:5]
        for i, ours in enumerate(_words_of_keys())
    )


def _same_uniforms(kernels: ModuleType, device: torch.device) -> bool:
    single = uniforms(kernels, _keys(device), 7, torch.float32).tolist()
    double = uniforms(kernels, _keys(device), 5, torch.float64).tolist()
    return all(
        single[i] == [(word & 0xFFFFFF) * 2.0**-24 for word in ours[:7]]
        and double[i] == [(word & (1 << 53) - 1) * 2.0**-53 for word in _paired(ours)[:5]]
        for i, ours in enumerate(_words_of_keys())
    )


def _keys(device: torch.device) -> Tensor:
    """Two keys, since kernels may put those of several in another order."""
    return torch.tensor([[_SEED, _OFFSET], [_SEED + 1, _OFFSET]], device=device)


def _words_of_keys() -> list[list[int]]:
    """The words of these keys by the reference: three blocks of each."""
    return [
        [word for block in range(3) for word in _host.block(seed, _OFFSET + block)]
        for seed in (_SEED, _SEED + 1)
    ]


def _paired(words: list[int]) -> list[int]:
    """Words of 64 bits, the high half first."""
    return [high << 32 | low for high, low in zip(words[::2], words[1::2], strict=True)]
