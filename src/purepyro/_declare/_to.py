"""``to``: a model in another dtype or on another device."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import torch
from pyro.distributions import Distribution
from torch import Tensor

from .._errors import DtypeError, describe
from ._conversion import Converter
from ._fields import Field, PyroParam, PyroSample
from ._module import Module
from ._parameter_fields import FittedInit, FittedPrior, check_overrides
from ._reads import OVERRIDES
from ._tree import Node, evolved, fields_of, plain_class, with_overrides

M = TypeVar("M", bound=Module)


def to(
    model: M,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
) -> M:
    """A copy of ``model`` in another dtype or on another device; the model stays as it is.

    Converted are tensors, ``torch.nn`` modules and distributions in fields, the initial values of
    parameters, and distributions given as priors. A prior built by a method follows the fields and
    parameters it reads. The dtype applies to floating tensors only.

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
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise DtypeError(
            f"to was given the dtype {describe(dtype)}, in which parameters and draws cannot be. "
            "Give a floating dtype, such as torch.float64; whole numbers in the model stay as they "
            "are."
        )
    converted = _Models(dtype, device).node(model)
    assert isinstance(converted, plain_class(type(model)))
    return converted


class _Models(Converter):
    """Converts a tree of Modules."""

    def __init__(self, dtype: torch.dtype | None, device: torch.device | str | None) -> None:
        super().__init__(dtype, device)
        self._nodes: dict[int, Node] = {}

    def node(self, node: Node) -> Node:
        """A Module and all below it."""
        if id(node) not in self._nodes:
            changes = {name: self.value(value, name) for name, value in fields_of(node)}
            # As they are: a converter of the class could undo the change.
            new = self._nodes[id(node)] = evolved(node, changes, as_given=True)
            old: dict[str, Field] = node.__dict__.get(OVERRIDES, {})
            declared = type(node).__declarations__ if isinstance(node, Module) else {}
            fields = {name: self._field(field) for name, field in {**declared, **old}.items()}
            if fields:
                with_overrides(new, fields, check_overrides)
        return self._nodes[id(node)]

    def value(self, value: object, path: str) -> object:
        return self.node(value) if isinstance(value, Node) else super().value(value, path)

    def _field(self, field: Field) -> Field:
        if isinstance(field, PyroParam):
            init = field.init
            init = (
                init.moved(self) if isinstance(init, FittedInit) else partial(self._initial, field)
            )
            return PyroParam(init, field.constraint, field.event_dim).fitting(field.shape)
        if isinstance(field, PyroSample):
            prior = field.prior
            if isinstance(prior, Distribution):
                prior = self.distribution(prior)
            elif isinstance(prior, FittedPrior):
                prior = prior.moved(self)
            else:
                return field
            return PyroSample(prior, local=field.local, infer=field.infer).fitting(field.shape)
        return field

    def _initial(self, field: PyroParam, owner: object) -> Tensor:
        return self.tensor(field.initial(field.name or "", owner))
