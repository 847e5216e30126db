"""torch's own Philox kernels (`torch.func._random`), where they agree with ours bit for bit.

torch 2.13 has them on CUDA, 2.15 on the CPU too. Only integers and uniforms are taken from them:
their normals equal ours to rounding, and a draw in a loop would not equal the draw under vmap.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import is_functorch_wrapped_tensor

from ..._compat._functorch import outside_transforms
from ..._compat._untyped import call, part
from . import _host

try:
    from torch.func import _random
except ImportError:  # before torch 2.13
    KERNELS: ModuleType | None = None
else:
    KERNELS = _random

_SEED, _OFFSET = 7, 9


def native(keys: Tensor) -> ModuleType | None:
    """The kernels to use for `keys`, or None: none there, or not to be used here."""
    if torch.compiler.is_compiling() or _len_torch_dispatch_stack():
        return None
    if is_functorch_wrapped_tensor(keys) or type(keys) is not Tensor:
        return None
    return KERNELS if _usable(keys.device) else None


def uniforms(kernels: ModuleType, keys: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Uniform numbers (*lead, size) from keys (*lead, 2)."""
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
def _usable(device: torch.device) -> bool:
    return KERNELS is not None and agrees(KERNELS, device)


def agrees(kernels: ModuleType, device: torch.device) -> bool:
    """Whether the kernels work on a device and give our bits for a key whose words are known."""
    try:
        with outside_transforms():
            return _same_words(kernels, device) and _same_uniforms(kernels, device)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _same_words(kernels: ModuleType, device: torch.device) -> bool:
    keys = torch.tensor([[_SEED, _OFFSET]], dtype=torch.int64, device=device)
    narrow = bits(kernels, keys, 5, torch.int32)[0].tolist()
    wide = bits(kernels, keys, 3, torch.int64)[0].tolist()
    ours = [*_host.block(_SEED, _OFFSET), *_host.block(_SEED, _OFFSET + 1)]
    pairs = zip(ours[0:6:2], ours[1:6:2], strict=True)
    return [word % 2**32 for word in narrow] == ours[:5] and [word % 2**64 for word in wide] == [
        high << 32 | low for high, low in pairs
    ]


def _same_uniforms(kernels: ModuleType, device: torch.device) -> bool:
    key = torch.tensor([_SEED, _OFFSET], dtype=torch.int64, device=device)
    w0, w1, w2, _ = _host.block(_SEED, _OFFSET)
    single = [(word & 0xFFFFFF) * 2.0**-24 for word in (w0, w1, w2)]
    double = [((w0 << 32 | w1) & (1 << 53) - 1) * 2.0**-53]
    return (
        uniforms(kernels, key, 3, torch.float32).tolist() == single
        and uniforms(kernels, key, 1, torch.float64).tolist() == double
    )
