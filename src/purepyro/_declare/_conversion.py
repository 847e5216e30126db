"""Tensors, networks and distributions in another dtype or on another device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from pyro.distributions import Distribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ._tree import map_children

D = TypeVar("D", bound=Distribution)


def converted(
    fn: TorchDistributionMixin, dtype: torch.dtype, device: torch.device
) -> TorchDistributionMixin:
    """A distribution whose floating tensors have another dtype and device; itself if they do."""
    parts = [part for part in _parts(fn, set()) if isinstance(part, Tensor)]
    if all(part.device == device for part in parts) and all(
        part.dtype == dtype for part in parts if part.is_floating_point()
    ):
        return fn
    return Converter(dtype, device).distribution(fn)


class Converter:
    """Converts values; an object met twice is converted once, so what was shared stays so."""

    def __init__(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        self._dtype = dtype
        self._device = device
        self._copies: dict[int, object] = {}
        self._nets: dict[int, nn.Module] = {}

    def value(self, value: object, path: str) -> object:
        """A tensor, network, distribution, or a container of these; all else as it is."""
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, nn.Module):
            if id(value) not in self._nets:
                # One memo for all copies: a parameter in two networks is one in their copies too.
                self._nets[id(value)] = copy.deepcopy(value, self._copies)
                self._nets[id(value)].to(self._device, self._dtype)
            return self._nets[id(value)]
        if isinstance(value, Distribution):
            return self.distribution(value)
        return map_children(value, path, self.value)

    def distribution(self, fn: D) -> D:
        """A distribution made of converted tensors."""
        # Not pyro's deep_to: it converts whole numbers too, and networks in place.
        memo = {id(part): self.value(part, "") for part in _parts(fn, set())}
        return copy.deepcopy(fn, memo)

    def tensor(self, value: Tensor) -> Tensor:
        """A tensor; one of whole numbers keeps its dtype."""
        dtype = self._dtype if value.is_floating_point() else None
        return value.to(device=self._device, dtype=dtype)


def _parts(value: object, seen: set[int]) -> Iterator[Tensor | nn.Module]:
    """The tensors and ``torch.nn`` modules that an object is made of."""
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, (Tensor, nn.Module)):
        yield value
        return
    if isinstance(value, (list, tuple)):
        inner = list(value)
    else:
        inner = list(
            (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
        )
    for part in inner:
        yield from _parts(part, seen)
