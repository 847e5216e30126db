"""The door to what torch and Pyro leave untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Distribution

tensor: Callable[[object, str], Tensor] = getattr
"""An attribute that is a tensor."""


def number(owner: object, name: str) -> int:
    """An attribute that is an integer."""
    return int(getattr(owner, name))


part: Callable[[object, str], object] = getattr
"""An attribute that is itself a distribution, or whatever else."""


def shape_of(owner: object, name: str) -> tuple[int, ...]:
    """An attribute that is a shape."""
    return tuple(getattr(owner, name))


def reparameterised(distribution: object) -> bool:
    """Whether a distribution's draws carry gradients."""
    return bool(getattr(distribution, "has_rsample", False))


def own_draw(distribution: object, shape: tuple[int, ...], *, part_of: bool) -> Tensor:
    """What the distribution's own code draws: `rsample` where it has it, else `sample`.

    As a part of another distribution, it is asked for `rsample` even where it does not own up to
    it: torch forgot to say so of the parts of its relaxed distributions.
    """
    has_method = getattr(type(distribution), "rsample", _NO_RSAMPLE) is not _NO_RSAMPLE
    gradient = reparameterised(distribution) or (part_of and has_method)
    method = getattr(distribution, "rsample" if gradient else "sample")
    # Pyro's subsampling takes no shape at all.
    return cast(Callable[..., Tensor], method)(*([torch.Size(shape)] if shape else []))


_NO_RSAMPLE: object = Distribution.rsample


def call(function: object, *arguments: object, **named: object) -> Tensor:
    """The tensor that an untyped function returns."""
    return cast(Callable[..., Tensor], function)(*arguments, **named)
