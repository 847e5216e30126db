"""What a guide must know of its model's latent sites before it can draw them.

The facts (names, shapes, supports, plates) come from one run of the model, on the first arguments
of each signature. They hold for all arguments of the same shapes, since a model's structure may
not depend on the numbers in them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint, independent, real

from ..._boundary import Plates
from ..._execute import Setting, execute, root_of
from ..._fields import PyroSample
from ..._module import Module
from ..._node import Node, nodes
from ..._scope import join
from ..._sites import Site
from ..._trees import signature
from ...random import key
from ...random._concrete import plain


@attrs.frozen
class Latent:
    """One latent site of a model; plates at their full size."""

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

    @property
    def unconstrained_event_dim(self) -> int:
        """How many of the rightmost unconstrained dimensions belong to one event."""
        return self.event_dim + len(self.unconstrained_shape) - len(self.shape)

    def zeros(self) -> Tensor:
        """Zeros of the shape of its unconstrained values."""
        return torch.zeros(self.unconstrained_shape, dtype=self.dtype, device=self.device)

    @property
    def is_real(self) -> bool:
        """Whether constrained and unconstrained values are the same."""
        support = self.support
        while isinstance(support, independent):
            support = support.base_constraint
        return type(support) is type(real)  # not `is`, as after unpickling there are two


class Prototypes:
    """The latent sites of a model, remembered by the signature of its arguments."""

    def __init__(self) -> None:
        self._known: dict[Hashable, list[Latent]] = {}

    def of(
        self, model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[Latent]:
        """The latent sites of ``model`` on such arguments, in the order of the run."""
        name = signature((args, dict(kwargs)))
        if name is not None and name in self._known:
            return self._known[name]
        latents, keep = _latents(model, args, kwargs)
        if name is not None and keep:
            self._known[name] = latents
        return latents


def _latents(
    model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[Latent], bool]:
    """The latent sites, and whether what is known of them may be kept for later runs."""
    with torch.no_grad():
        # Two runs, since a support that moves with other draws shows only so.
        first, second = (
            execute(model, key(seed), args, kwargs, Setting(collect=True)).sites for seed in (0, 1)
        )
    sites = [site for site in first.values() if site.kind == "latent" and not site.auxiliary]
    declared = _declared_sites(root_of(model))
    latents = [
        _latent(site, _fault(site, second[site.name]), declared=site.name in declared)
        for site in sites
    ]
    bounds = [plain(tensor) for site in sites for tensor in _tensors(site.fn.support)]
    return latents, None not in bounds


def _fault(site: Site, again: Site) -> str | None:
    """Why no automatic guide can have the site, if so; ``again`` is it in another run."""
    support: Constraint = site.fn.support
    if support.is_discrete:
        return (
            f"The latent site {site.name!r} is discrete ({type(site.fn).__name__}), which no "
            "automatic guide can fit. Sum it out in the model, observe it, or write a guide by "
            "hand."
        )
    pairs = zip(_tensors(support), _tensors(again.fn.support), strict=True)
    if any(_differ(plain(one), plain(other)) for one, other in pairs):
        return (
            f"The support {support} of the latent site {site.name!r} depends on other random "
            "sites, so no fixed transform maps onto it. Draw a site with a fixed support, such as "
            "Uniform(0, 1), and compute this one from it."
        )
    return None


def _differ(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are seen to be different."""
    return one is not None and other is not None and not torch.equal(one, other)


def _declared_sites(root: Node | None) -> set[str]:
    """The paths of all ``PyroSample`` fields from ``root`` down."""
    return {
        join(path, name)
        for path, node in (nodes(root) if root is not None else ())
        if isinstance(node, Module)
        for name, field in type(node).__declarations__.items()
        if isinstance(field, PyroSample)
    }


def _latent(site: Site, fault: str | None, *, declared: bool) -> Latent:
    support: Constraint = site.fn.support
    event_dim, shape = site.fn.event_dim, list(site.value.shape)
    # A plate without a size has that of its sites.
    plates = tuple(
        frame
        if frame.size != -1 or frame.dim is None
        else frame._replace(size=shape[frame.dim - event_dim], full_size=None)
        for frame in site.plates
        if frame.size != -1 or (frame.dim is not None and len(shape) >= event_dim - frame.dim)
    )
    for frame in plates:
        if frame.dim is not None and frame.full_size is not None:
            shape[frame.dim - event_dim] = frame.full_size
    full = torch.Size(shape)
    return Latent(
        site.name,
        plates,
        support,
        event_dim,
        full,
        full if fault else torch.Size(biject_to(support).inverse_shape(full)),
        site.value.dtype,
        site.value.device,
        declared,
        fault,
    )


def _tensors(constraint: object) -> list[Tensor]:
    """The tensors a constraint is made of, such as the bounds of an interval."""
    if isinstance(constraint, Tensor):
        return [constraint]
    if isinstance(constraint, (list, tuple)):
        return [t for item in constraint for t in _tensors(item)]
    if isinstance(constraint, Constraint):
        return [t for item in vars(constraint).values() for t in _tensors(item)]
    return []
