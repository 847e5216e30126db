"""Keyed versions of the random calls that make a new tensor: torch.rand and its like."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .._bits import _bounded
from .._bits._shape import Plan, broadcast, plan
from .._bits._words import normals, uniforms
from .._source import KeySource

Size = Sequence[int]
Device = torch.device | str | int | None
Draw = Callable[[Plan, torch.dtype], Tensor]


def _of_shape(draw: Draw) -> Callable[..., Tensor]:
    """`torch.rand` or `torch.randn`, from what draws their values."""

    def factory(
        source: KeySource,
        *shape: int | Size,
        size: Size | None = None,
        out: Tensor | None = None,
        dtype: torch.dtype | None = None,
        device: Device = None,
        requires_grad: bool = False,
        **_: object,
    ) -> Tensor:
        key = source.next_key(_device(out, device))
        found = draw(plan(key, _size(shape, size)), _dtype(out, dtype))
        return finished(found, out, requires_grad)

    return factory


def _like(draw: Draw) -> Callable[..., Tensor]:
    """`torch.rand_like` or `torch.randn_like`, from what draws their values."""

    def factory(
        source: KeySource,
        input: Tensor,
        *,
        dtype: torch.dtype | None = None,
        device: Device = None,
        requires_grad: bool = False,
        **_: object,
    ) -> Tensor:
        key = source.next_key(_device(input, device))
        found = draw(plan(key, tuple(input.shape)), dtype or input.dtype)
        return finished(found, None, requires_grad)

    return factory


rand, randn = _of_shape(uniforms), _of_shape(normals)
rand_like, randn_like = _like(uniforms), _like(normals)


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
    given = [bound for bound in bounds if isinstance(bound, int)]
    for bound in bounds:
        if not isinstance(bound, int):
            shape = bound
    start, stop = _bounds(given, low, high)
    key = source.next_key(_device(out, device))
    found = _bounded.between(plan(key, tuple(shape or ())), start, stop, torch.int64)
    wanted = dtype or (torch.int64 if out is None else out.dtype)
    return finished(found.to(wanted), out)


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
    return finished(found.to(wanted), out)


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
    """`torch.normal`: means and standard deviations as tensors, or floats and a size."""
    given = [value for value in (mean, std) if isinstance(value, Tensor)]
    if given:
        shape = broadcast(*(value.shape for value in given))
        key, wanted = source.next_key(given[0].device), given[0].dtype
    else:
        shape = tuple(size or ())
        key, wanted = source.next_key(_device(out, device)), _dtype(out, dtype)
    found = normals(plan(key, shape), wanted) * std + mean
    return finished(found, out)


def _bounds(given: list[int], low: int, high: int | None) -> tuple[int, int]:
    if len(given) > 1:
        return given[0], given[1]
    if given and high is None:
        return low, given[0]
    if given:
        return given[0], _required(high)
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


def finished(found: Tensor, out: Tensor | None, requires_grad: bool = False) -> Tensor:
    """A new tensor as torch's random calls return it: in ``out``, or by itself."""
    if out is not None:
        return out.resize_(found.shape).copy_(found)
    return found.requires_grad_() if requires_grad else found
