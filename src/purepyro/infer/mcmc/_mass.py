"""The mass matrix: a diagonal (chains, D), or all of it (chains, D, D)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ..._errors import DeclarationError, UnknownNameError, describe, near
from ._potential import Layout

DenseMass: TypeAlias = bool | Sequence[Sequence[str]]
"""Whether the mass matrix is dense; or for which blocks of sites it is."""


def is_dense(inverse_mass: Tensor, position: Tensor) -> bool:
    """Whether the mass matrix is more than a diagonal."""
    return inverse_mass.ndim > position.ndim


def velocity(inverse_mass: Tensor, momentum: Tensor) -> Tensor:
    """The inverse mass matrix times momenta (chains, ..., D)."""
    chains, *levels, size = momentum.shape
    if inverse_mass.ndim == 2:
        return inverse_mass.reshape(chains, *(1 for _ in levels), size) * momentum
    rows = momentum.reshape(chains, -1, size)
    return (rows @ inverse_mass).reshape(momentum.shape)


def dot(one: Tensor, other: Tensor) -> Tensor:
    """The inner product along the last dimension."""
    return (one * other).sum(-1)


def kinetic(inverse_mass: Tensor, momentum: Tensor) -> Tensor:
    """The kinetic energy of momenta (chains, D)."""
    return 0.5 * dot(momentum, velocity(inverse_mass, momentum))


def scaled(mass_root: Tensor, noise: Tensor) -> Tensor:
    """Momenta from standard normals (chains, D)."""
    if mass_root.ndim == 2:
        return mass_root * noise
    return (mass_root @ noise.unsqueeze(-1)).squeeze(-1)


def root_of(inverse_mass: Tensor, *, dense: bool) -> Tensor:
    """What momenta are scaled by, so that their covariance is the mass matrix."""
    if not dense:
        return inverse_mass.rsqrt()
    factor, _ = torch.linalg.cholesky_ex(inverse_mass)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root: Tensor = torch.linalg.solve_triangular(factor.mT, eye.expand_as(factor), upper=True)
    return root


def blocks_of(dense_mass: DenseMass, layout: Layout) -> Tensor | None:
    """Where a mass matrix (D, D) may differ from zero, as ones; ``None`` for a diagonal.

    Raises:
        UnknownNameError: if a block has a name that is no latent site.
        DeclarationError: if a site is in two blocks.
    """
    if isinstance(dense_mass, bool):
        size = sum(layout.sizes)
        return torch.ones(size, size) if dense_mass else None
    names = [part.name for part in layout.parts]
    of_element = torch.tensor(
        [i for i, size in enumerate(layout.sizes) for _ in range(size)], dtype=torch.int64
    )
    block = torch.arange(len(of_element)) + len(names)  # each by itself
    taken: set[str] = set()
    for number, group in enumerate(dense_mass):
        for name in group:
            if name not in names:
                raise UnknownNameError(
                    f"dense_mass has {name!r}, which is no latent site of the model. "
                    f"{near(name, names)}"
                )
            if name in taken:
                raise DeclarationError(
                    f"dense_mass has the site {name!r} in two blocks, so it is not clear with "
                    "which sites it is correlated. Join the blocks."
                )
            taken.add(name)
            block = torch.where(of_element == names.index(name), number, block)
    return (block[:, None] == block[None, :]).to(torch.float32)


def as_dense_mass(dense_mass: object) -> DenseMass:
    """``dense_mass`` as a bool, or as tuples of names."""
    if isinstance(dense_mass, bool):
        return dense_mass
    if isinstance(dense_mass, Sequence) and not isinstance(dense_mass, str):
        groups = [
            tuple(group)
            for group in dense_mass
            if isinstance(group, Sequence) and not isinstance(group, str)
        ]
        if len(groups) == len(dense_mass) and all(
            isinstance(name, str) for group in groups for name in group
        ):
            return tuple(groups)
    raise DeclarationError(
        f"dense_mass is {describe(dense_mass)}, and a mass matrix is diagonal (False), dense "
        '(True), or dense for blocks of sites: dense_mass=[("a", "b"), ("c",)].'
    )
