"""Keyed versions of torch's continuous random primitives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._batch_invariant import row_sum
from .._bits._shape import plan
from .._bits._words import open_uniforms, uniforms
from .._key import Key
from ._gamma import log_gamma
from ._implicit import attach_dirichlet


def exponential(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard exponential numbers, above 0 as torch's are."""
    logs = torch.log(open_uniforms(plan(key, shape), dtype))
    return -logs.clamp(max=-torch.finfo(dtype).eps / 2)


def cauchy(key: Key, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Standard Cauchy numbers, by the quantile function."""
    return torch.tan(math.pi * (uniforms(plan(key, shape), dtype) - 0.5))


def dirichlet(key: Key, concentration: Tensor) -> Tensor:
    """Dirichlet vectors along the last dimension, with the implicit gradient.

    Normalised gamma numbers, in logarithms so that small concentrations do not underflow.
    """
    logs = log_gamma(key, concentration)
    powers = torch.exp(logs - logs.amax(-1, keepdim=True))
    value = powers / row_sum(powers, keepdim=True)
    tiny = torch.finfo(value.dtype).tiny
    return attach_dirichlet(concentration, value.clamp(min=tiny))
