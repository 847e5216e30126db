"""Floating-point numbers made of 32-bit words."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def single(word: Tensor) -> Tensor:
    """A float32 in (0, 1]: the midpoint of the word's share of the unit interval."""
    return word.to(torch.float32) * 2.0**-32 + 2.0**-33


def double(high: Tensor, low: Tensor) -> Tensor:
    """The same as float64, of two words."""
    return high.to(torch.float64) * 2.0**-32 + (low.to(torch.float64) * 2.0**-64 + 2.0**-65)


def box_muller(radial: Tensor, angular: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers of two uniform ones; Box and Muller (1958)."""
    radius = (radial.log() * -2.0).sqrt()
    angle = angular * (2.0 * math.pi)
    return radius * angle.cos(), radius * angle.sin()
