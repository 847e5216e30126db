"""Streams of random words, and the uniform and normal numbers made of them.

Every function takes a `Plan` and returns (*lead, size), or the plan's shape. Each has two ways to
the same bits: NumPy where the keys can be read, torch operations elsewhere. The float functions
used (log, sqrt, cos, sin) give the same bits wherever in a tensor a number stands, which makes a
draw under vmap equal to the draws of a loop; pow, sigmoid and softplus of torch do not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..._compat._functorch import outside_transforms, readable
from . import _host, _native, _philox_operators
from ._constants import MASK32
from ._floats import box_muller, double, single
from ._host import Wide, Words
from ._shape import Plan

# Uniform numbers are k * 2**-digits, as many digits as the dtype's significand holds.
_DIGITS = {torch.float32: 24, torch.float64: 53, torch.float16: 11, torch.bfloat16: 8}


def words(plan: Plan) -> Tensor:
    """32-bit words as int64 in [0, 2**32)."""
    kernels = _native.native(plan.keys)
    if kernels is not None:
        narrow = _native.bits(kernels, plan.keys, plan.size, torch.int32)
        return (narrow.to(torch.int64) & MASK32).reshape(plan.shape)
    pairs = readable(plan.keys)
    if pairs is not None:
        with outside_transforms():
            found = _host_words(pairs, plan.size).astype(np.int64)
            return torch.from_numpy(found).reshape(plan.shape)
    return _cut(_philox_operators.blocks(plan.keys, -(-plan.size // 4), "words"), plan)


def wide_words(plan: Plan) -> Tensor:
    """64-bit words as int64 bit patterns; the first word of a pair is the high half."""
    kernels = _native.native(plan.keys)
    if kernels is not None:
        return _native.bits(kernels, plan.keys, plan.size, torch.int64).reshape(plan.shape)
    pairs = readable(plan.keys)
    if pairs is not None:
        with outside_transforms():
            found = _host_wide_words(pairs, plan.size).view(np.int64)
            return torch.from_numpy(found).reshape(plan.shape)
    return _cut(_philox_operators.blocks(plan.keys, -(-plan.size // 2), "wide_words"), plan)


def uniforms(plan: Plan, dtype: torch.dtype) -> Tensor:
    """Uniform numbers in [0, 1)."""
    kernels = _native.native(plan.keys)
    if kernels is not None and dtype in (torch.float32, torch.float64):
        return _native.uniforms(kernels, plan.keys, plan.size, dtype).reshape(plan.shape)
    digits = _DIGITS[dtype]
    mask, scale = (1 << digits) - 1, 2.0**-digits
    pairs = readable(plan.keys)
    if pairs is None:
        found = wide_words(plan) if digits == 53 else words(plan)
        return (found & mask).to(dtype) * scale
    with outside_transforms():
        return _host_uniforms(pairs, plan.size, dtype).reshape(plan.shape)


def open_uniforms(plan: Plan, dtype: torch.dtype) -> Tensor:
    """Uniform numbers in (0, 1], fine near 0: 2**-33 is the least float32, for logarithms."""
    if dtype is torch.float64:
        return (_top(wide_words(plan)) + 0.5) * 2.0**-53
    return (words(plan).to(torch.float32) * 2.0**-32 + 2.0**-33).to(dtype)


def normals(plan: Plan, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers in pairs by the method of Box and Muller (1958)."""
    if _native.native(plan.keys) is not None:
        return _normals_of_words(plan, dtype)
    pairs = readable(plan.keys)
    if pairs is not None:
        with outside_transforms():
            found = _host_normals(pairs, plan.size, dtype).reshape(plan.shape)
            return found if found.dtype is dtype else found.to(dtype)
    if dtype is torch.float64:
        return _cut(_philox_operators.blocks(plan.keys, -(-plan.size // 2), "wide_normals"), plan)
    return _cut(_philox_operators.blocks(plan.keys, -(-plan.size // 4), "normals"), plan).to(dtype)


def _normals_of_words(plan: Plan, dtype: torch.dtype) -> Tensor:
    """The same from whole words: for kernels that give them, as their normals are not our bits."""
    whole = Plan(plan.keys, 2 * -(-plan.size // 2), (*plan.keys.shape[:-1], -1))
    if dtype is torch.float64:
        word = wide_words(whole)
        number = double(word >> 32 & MASK32, word & MASK32)
    else:
        number = single(words(whole))
    numbers = box_muller(number[..., 0::2], number[..., 1::2])
    return _cut(torch.stack(numbers, dim=-1), plan).to(dtype)


def _cut(found: Tensor, plan: Plan) -> Tensor:
    """The lanes of each block side by side, block after block, cut to the plan's count."""
    return found.flatten(-2)[..., : plan.size].reshape(plan.shape)


def _top(word: Tensor) -> Tensor:
    """The top 53 bits of a 64-bit word as float64."""
    return (word >> 11 & (1 << 53) - 1).to(torch.float64)


def _host_words(pairs: Wide, count: int) -> Words:
    even, odd = _host.blocks(pairs, -(-count // 4))
    found = np.empty((even.shape[1], even.shape[2], 2, 2), dtype=np.uint32)
    found[..., 0], found[..., 1] = even.transpose(1, 2, 0), odd.transpose(1, 2, 0)
    return found.reshape(even.shape[1], -1)[:, :count]


def _host_wide_words(pairs: Wide, count: int) -> Wide:
    even, odd = _host.blocks(pairs, -(-count // 2))
    found = even.astype(np.uint64) << np.uint64(32) | odd
    return found.transpose(1, 2, 0).reshape(even.shape[1], -1)[:, :count]


def _host_uniforms(pairs: Wide, count: int, dtype: torch.dtype) -> Tensor:
    digits = _DIGITS[dtype]
    mask, scale = (1 << digits) - 1, 2.0**-digits
    if digits == 53:
        double = (_host_wide_words(pairs, count) & np.uint64(mask)).astype(np.float64)
        return torch.from_numpy(double * scale)
    single = (_host_words(pairs, count) & np.uint32(mask)).astype(np.float32)
    return torch.from_numpy(np.multiply(single, np.float32(scale), out=single)).to(dtype)


def _host_normals(pairs: Wide, count: int, dtype: torch.dtype) -> Tensor:
    """In float64 if that is the dtype, in float32 if it is any other."""
    if dtype is torch.float64:
        even, odd = _host.blocks(pairs, -(-count // 2))
        double = even * 2.0**-32 + (odd * 2.0**-64 + 2.0**-65)
        return _host_pairs(double[:1], double[1:], count)
    even, odd = _host.blocks(pairs, -(-count // 4))
    scale, half = np.float32(2.0**-32), np.float32(2.0**-33)
    radial = even.astype(np.float32) * scale + half
    angular = odd.astype(np.float32) * scale + half
    return _host_pairs(radial, angular, count)


def _host_pairs(radial: NDArray[np.floating], angular: NDArray[np.floating], count: int) -> Tensor:
    """Box-Muller pairs (keys, count) from uniforms (pairs of a block, keys, blocks).

    Products are exact to the rounding in either library; log, sqrt, cos and sin must be torch's,
    whose sqrt (MKL's) is off by a bit now and then.
    """
    of = radial.dtype.type
    squares = torch.from_numpy(np.multiply(torch.from_numpy(radial).log_().numpy(), of(-2.0)))
    angle = torch.from_numpy(np.multiply(angular, of(2.0 * math.pi), out=angular))
    radius = squares.sqrt_().numpy()
    lanes, number, blocks = radial.shape
    found = np.empty((number, blocks, lanes, 2), dtype=radial.dtype)
    across = found.transpose(3, 2, 0, 1)
    np.multiply(radius, angle.cos().numpy(), out=across[0])
    np.multiply(radius, angle.sin().numpy(), out=across[1])
    return torch.from_numpy(found.reshape(number, -1)[:, :count])
