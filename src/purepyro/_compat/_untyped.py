"""The door to what torch and Pyro leave untyped."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma


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


def beta_part(owner: object) -> Beta:
    """The beta distribution that a compound distribution keeps."""
    return cast(Beta, part(owner, "_beta"))


def gamma_part(owner: object) -> Gamma:
    """The gamma distribution that a compound distribution keeps."""
    return cast(Gamma, part(owner, "_gamma"))
