"""Keyed versions of the random calls that make a new tensor: torch.rand and its like."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._bits import _bounded
from .._bits._shape import broadcast, plan
from .._bits._words import normals, uniforms
from .._source import KeySource

Size = Sequence[int]
Device = torch.device | str | int | None
_Ignored = object


def rand(
    source: KeySource,
    *shape: int | Size,
    size: Size | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    requires_grad: bool = False,
    **_: object,
) -> Tensor:
    """`torch.rand`."""
    key = source.next_key(_device(out, device))
    found = uniforms(plan(key, _size(shape, size)), _dtype(out, dtype))
    return _finished(found, out, requires_grad)


def randn(
    source: KeySource,
    *shape: int | Size,
    size: Size | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    requires_grad: bool = False,
    **_: object,
) -> Tensor:
    """`torch.randn`."""
    key = source.next_key(_device(out, device))
    found = normals(plan(key, _size(shape, size)), _dtype(out, dtype))
    return _finished(found, out, requires_grad)


def rand_like(
    source: KeySource,
    input: Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    requires_grad: bool = False,
    **_: object,
) -> Tensor:
    """`torch.rand_like`."""
    key = source.next_key(_device(input, device))
    found = uniforms(plan(key, tuple(input.shape)), dtype or input.dtype)
    return _finished(found, None, requires_grad)


def randn_like(
    source: KeySource,
    input: Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: Device = None,
    requires_grad: bool = False,
    **_: object,
) -> Tensor:
    """`torch.randn_like`."""
    key = source.next_key(_device(input, device))
    found = normals(plan(key, tuple(input.shape)), dtype or input.dtype)
    return _finished(found, None, requires_grad)


def randint(
    source: KeySource,
    *bounds: int | Size,
    low: int = 0,
    high: int | None = None,
    size: Size | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    **_: object,
) -> Tensor:
    """`torch.randint`: (high, size) or (low, high, size)."""
    shape = size
    numbers = [bound for bound in bounds if isinstance(bound, int)]
    for bound in bounds:
        if not isinstance(bound, int):
            shape = bound
    start, stop = _bounds(numbers, low, high)
    key = source.next_key(_device(out, device))
    found = _bounded.between(plan(key, tuple(shape or ())), start, stop, torch.int64)
    wanted = dtype or (torch.int64 if out is None else out.dtype)
    return _finished(found.to(wanted), out, False)


def randint_like(
    source: KeySource,
    input: Tensor,
    *bounds: int,
    low: int = 0,
    high: int | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    **_: object,
) -> Tensor:
    """`torch.randint_like`: (input, high) or (input, low, high)."""
    start, stop = _bounds(list(bounds), low, high)
    key = source.next_key(_device(input, device))
    found = _bounded.between(plan(key, tuple(input.shape)), start, stop, torch.int64)
    return found.to(dtype or input.dtype)


def randperm(
    source: KeySource,
    n: int,
    *,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    **_: object,
) -> Tensor:
    """`torch.randperm`."""
    found = _bounded.permutation(source.next_key(_device(out, device)), n)
    wanted = dtype or (torch.int64 if out is None else out.dtype)
    return _finished(found.to(wanted), out, False)


def normal(
    source: KeySource,
    mean: float | Tensor = 0.0,
    std: float | Tensor = 1.0,
    size: Size | None = None,
    *,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
    **_: object,
) -> Tensor:
    """`torch.normal`: means and standard deviations as tensors, or numbers and a size."""
    given = [value for value in (mean, std) if isinstance(value, Tensor)]
    if given:
        shape = broadcast(*(value.shape for value in given))
        key, wanted = source.next_key(given[0].device), given[0].dtype
    else:
        shape = tuple(size or ())
        key, wanted = source.next_key(_device(out, device)), _dtype(out, dtype)
    found = normals(plan(key, shape), wanted) * std + mean
    return _finished(found, out, False)


def _bounds(numbers: list[int], low: int, high: int | None) -> tuple[int, int]:
    if len(numbers) > 1:
        return numbers[0], numbers[1]
    if numbers and high is None:
        return low, numbers[0]
    if numbers:
        return numbers[0], _required(high)
    return low, _required(high)


def _required(high: int | None) -> int:
    if high is None:
        raise TypeError("`high` is missing. Random integers need an upper bound. Give `high`.")
    return high


def _size(shape: tuple[int | Size, ...], named: Size | None) -> tuple[int, ...]:
    if named is not None:
        return tuple(named)
    if len(shape) == 1 and isinstance(shape[0], Sequence):
        return tuple(shape[0])
    return tuple(size for size in shape if not isinstance(size, Sequence))


def _dtype(out: Tensor | None, dtype: torch.dtype | None) -> torch.dtype:
    return dtype or (torch.get_default_dtype() if out is None else out.dtype)


def _device(like: Tensor | None, device: Device) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.get_default_device() if like is None else like.device


def _finished(found: Tensor, out: Tensor | None, requires_grad: bool) -> Tensor:
    if out is not None:
        return out.resize_(found.shape).copy_(found)
    return found.requires_grad_() if requires_grad else found
