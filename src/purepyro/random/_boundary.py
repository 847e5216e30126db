"""The door to what torch and Pyro leave untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor


def tensor(owner: object, name: str) -> Tensor:
    """An attribute that is a tensor."""
    return cast(Tensor, getattr(owner, name))


def number(owner: object, name: str) -> int:
    """An attribute that is an integer."""
    return int(getattr(owner, name))


def part(owner: object, name: str) -> object:
    """An attribute that is itself a distribution, or whatever else."""
    return cast(object, getattr(owner, name))


def shape_of(owner: object, name: str) -> tuple[int, ...]:
    """An attribute that is a shape."""
    return tuple(getattr(owner, name))


def reparameterised(distribution: object) -> bool:
    """Whether a distribution's draws carry gradients."""
    return bool(getattr(distribution, "has_rsample", False))


def own_draw(distribution: object, shape: tuple[int, ...]) -> Tensor:
    """What the distribution's own code draws: `rsample` where it has it, else `sample`."""
    size = torch.Size(shape)
    name = "rsample" if reparameterised(distribution) else "sample"
    method: Callable[[torch.Size], Tensor] = getattr(distribution, name)
    return method(size) if size or name == "rsample" else cast(Callable[[], Tensor], method)()


def call(function: object, *arguments: object) -> Tensor:
    """The tensor that an untyped function returns."""
    return cast(Callable[..., Tensor], function)(*arguments)
