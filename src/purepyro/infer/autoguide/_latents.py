"""The latent sites of a model, as a guide knows them."""

from __future__ import annotations

from collections.abc import Set
from copy import copy
from functools import lru_cache
from typing import TypeVar, cast

import attrs
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint, independent, real

from ..._compat._distributions import batch_mask, both_masks
from ..._compat._plates import Plates
from ..._compat._transforms import may_be_blind
from ..._declare._fields import PyroSample
from ..._declare._module import Module
from ..._declare._reads import join
from ..._declare._tree import Node, nodes
from ..._run._execute import RunResult
from ..._run._sites import Site

T = TypeVar("T")


@attrs.frozen
class Latent:
    """One latent site of a model; plates at their full size.

    Attributes:
        mask: Which elements of the batch count, as far as the guide must know.
        by_row: Whether the support is known of the rows of this run only.
    """

    name: str
    plates: Plates
    support: Constraint
    event_dim: int
    shape: torch.Size
    unconstrained_shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    declared: bool
    fault: str | None
    mask: Tensor | bool | None = None
    by_row: bool = False

    @property
    def unconstrained_event_dim(self) -> int:
        """How many of the rightmost unconstrained dimensions belong to one event."""
        return self.event_dim + len(self.unconstrained_shape) - len(self.shape)

    def zeros(self) -> Tensor:
        """Zeros of the shape of its unconstrained values."""
        return torch.zeros(self.unconstrained_shape, dtype=self.dtype, device=self.device)

    def like(self) -> Tensor:
        """A tensor of the shape and dtype of its unconstrained values, which hold no memory."""
        if may_be_blind():
            return self.zeros()
        return _like(self.unconstrained_shape, self.dtype, self.device)

    @property
    def is_real(self) -> bool:
        """Whether constrained and unconstrained values are the same."""
        support = self.support
        while isinstance(support, independent):
            support = support.base_constraint
        return type(support) is type(real)  # not `is`, as after unpickling there are two


@lru_cache(maxsize=256)
def _like(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def mask_of(site: Site) -> Tensor | bool | None:
    return both_masks(site.mask, batch_mask(site.fn))


def latent_sites(outcome: RunResult[object]) -> list[Site]:
    sites = outcome.sites.values()
    return [site for site in sites if site.kind == "latent" and not site.auxiliary]


def declared_sites(root: Node | None) -> set[str]:
    """The paths of all ``PyroSample`` fields from ``root`` down."""
    return {
        join(path, name)
        for path, node in (nodes(root) if root is not None else ())
        if isinstance(node, Module)
        for name, field in type(node).__declarations__.items()
        if isinstance(field, PyroSample)
    }


def latent_of(site: Site, fault: str | None, arranged: Set[str], *, declared: bool) -> Latent:
    event_dim, shape = site.fn.event_dim, list(site.value.shape)
    # A plate without a size has that of its sites.
    plates = tuple(
        frame
        if frame.size != -1 or frame.dim is None
        else frame._replace(size=shape[frame.dim - event_dim], full_size=None)
        for frame in site.plates
        if frame.size != -1 or (frame.dim is not None and len(shape) >= event_dim - frame.dim)
    )
    support: Constraint = site.fn.support
    # The bounds may be of these rows only, so the shape is asked for before there are more.
    bent = list(shape if fault else biject_to(support).inverse_shape(site.value.shape))
    bent_dim = event_dim + len(bent) - len(shape)
    mask = mask_of(site)
    dims: list[int] = []
    for frame in plates:
        if frame.dim is not None and frame.full_size is not None:
            shape[frame.dim - event_dim] = bent[frame.dim - bent_dim] = frame.full_size
            if frame.full_size != frame.size or frame.name in arranged:
                dims.append(frame.dim - event_dim)
    support = _of_all_rows(support, dims)
    by_row = any(_varies(tensor, dim) for tensor in tensors_of(support) for dim in dims)
    return Latent(
        site.name,
        plates,
        support,
        event_dim,
        torch.Size(shape),
        torch.Size(bent),
        site.value.dtype,
        site.value.device,
        declared,
        fault,
        None if mask is True else mask,
        by_row,
    )


def tensors_of(constraint: object) -> list[Tensor]:
    """The tensors a constraint is made of, such as the bounds of an interval."""
    if isinstance(constraint, Tensor):
        return [constraint]
    if isinstance(constraint, (list, tuple)):
        return [t for item in constraint for t in tensors_of(item)]
    if isinstance(constraint, Constraint):
        return [t for item in vars(constraint).values() for t in tensors_of(item)]
    return []


def _of_all_rows(constraint: T, dims: list[int]) -> T:
    """A constraint whose tensors, where they are the same in all rows, do of size one there."""
    if isinstance(constraint, Tensor):
        return cast("T", _without(constraint, dims))
    if isinstance(constraint, Constraint) and dims and tensors_of(constraint):
        other = copy(constraint)
        parts = {name: _of_all_rows(part, dims) for name, part in vars(constraint).items()}
        vars(other).update(parts)
        return other
    return constraint


def _without(tensor: Tensor, dims: list[int]) -> Tensor:
    """A tensor, of size one along those of ``dims`` that it is expanded along."""
    for dim in dims:
        if tensor.ndim >= -dim and tensor.stride(dim) == 0:
            tensor = tensor.narrow(dim, 0, min(1, tensor.size(dim)))
    return tensor


def _varies(tensor: Tensor, dim: int) -> bool:
    return tensor.ndim >= -dim and tensor.stride(dim) != 0
