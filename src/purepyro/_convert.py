"""``to``: a model in another dtype or on another device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import TypeVar

import torch
from pyro.distributions import Distribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ._fields import Field, PyroParam, PyroSample
from ._module import Module
from ._node import Node, evolved, fields_of, map_children
from ._scope import OVERRIDES

M = TypeVar("M", bound=Module)
D = TypeVar("D", bound=Distribution)


def to(
    model: M,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
) -> M:
    """A copy of ``model`` in another dtype or on another device; the model stays as it is.

    Converted are tensor fields, ``torch.nn`` modules, the initial values of parameters, and
    distributions given as priors. A prior built by a method follows the fields and parameters it
    reads. The dtype applies to floating tensors only.

    Args:
        model: A Module.
        dtype: A floating dtype, or ``None`` to keep it.
        device: A device, or ``None`` to keep it.

    Source: ``torch.nn.Module.to``, which changes in place.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroSample, apply, random, to
        >>> class Coin(Module):
        ...     p = PyroSample(dist.Beta(1.0, 1.0))
        ...
        ...     def forward(self):
        ...         return self.p
        >>> apply(to(Coin(), torch.float64), {}, random.key(0)).dtype
        torch.float64
    """
    converted = _Converter(dtype, device).node(model)
    assert isinstance(converted, type(model))
    return converted


def converted(
    fn: TorchDistributionMixin, dtype: torch.dtype, device: torch.device
) -> TorchDistributionMixin:
    """A distribution whose floating tensors have another dtype and device; itself if they do."""
    parts = [part for part in _parts(fn, set()) if isinstance(part, Tensor)]
    if all(part.device == device for part in parts) and all(
        part.dtype == dtype for part in parts if part.is_floating_point()
    ):
        return fn
    return _Converter(dtype, device).distribution(fn)


class _Converter:
    """Converts a tree; an object met twice is converted once."""

    def __init__(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        self._dtype = dtype
        self._device = device
        self._done: dict[int, object] = {}

    def node(self, node: Node) -> object:
        if id(node) not in self._done:
            changes = {name: self._value(value, name) for name, value in fields_of(node)}
            new = self._done[id(node)] = evolved(node, changes)
            old: dict[str, Field] = node.__dict__.get(OVERRIDES, {})
            declared = type(node).__declarations__ if isinstance(node, Module) else {}
            new.__dict__[OVERRIDES] = {
                name: self._field(field) for name, field in {**declared, **old}.items()
            }
        return self._done[id(node)]

    def _value(self, value: object, path: str) -> object:
        if isinstance(value, Node):
            return self.node(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            if id(value) not in self._done:
                self._done[id(value)] = copy.deepcopy(value).to(self._device, self._dtype)
            return self._done[id(value)]
        return map_children(value, path, self._value)

    def _field(self, field: Field) -> Field:
        if isinstance(field, PyroParam):
            init = partial(self._initial, field)
            return PyroParam(init, field.constraint, field.event_dim)
        if isinstance(field, PyroSample) and isinstance(field.prior, Distribution):
            return PyroSample(self.distribution(field.prior), infer=field.infer)
        return field

    def distribution(self, fn: D) -> D:
        """A distribution made of converted tensors."""
        # Not pyro's deep_to: it converts whole numbers too, and networks in place.
        memo = {id(part): self._value(part, "") for part in _parts(fn, set())}
        return copy.deepcopy(fn, memo)

    def _initial(self, field: PyroParam, owner: object) -> Tensor:
        return self._tensor(field.initial(field.name or "", owner))

    def _tensor(self, value: Tensor) -> Tensor:
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
