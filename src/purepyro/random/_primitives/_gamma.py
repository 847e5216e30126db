"""Standard gamma values from a key."""

from __future__ import annotations

import torch
from torch import Tensor

from .._bits._shape import plan
from .._bits._words import normals, open_uniforms
from .._derive import stream
from .._key import Key
from ._implicit import attach_gamma

PROPOSALS = 10
"""Proposals for each value. The least likely to be accepted are those for shape 1, of which a
share of 0.0484 is not (Marsaglia & Tsang 2000, table 1): 10 fail together with probability 7e-14.
"""


def standard_gamma(key: Key, concentration: Tensor) -> Tensor:
    """Gamma values of rate 1, with the implicit gradient in `concentration`.

    Args:
        key: One key.
        concentration: Shape parameters, floating-point, any shape.

    Returns:
        One value for each, of the same shape and dtype.
    """
    return attach_gamma(concentration, log_gamma(key, concentration.detach()).exp())


def log_gamma(key: Key, concentration: Tensor) -> Tensor:
    """Logarithms of gamma values, finite where the values themselves underflow; no gradient."""
    wide = torch.float64 if concentration.dtype is torch.float64 else torch.float32
    shape_parameter = concentration.detach().to(wide)
    # Below 1 a value of the shape plus one is scaled by u**(1/shape): their section 6.
    boosted = shape_parameter < 1
    raised = torch.where(boosted, shape_parameter + 1, shape_parameter)
    proposal = torch.log(_marsaglia_tsang(key, raised))
    uniform = open_uniforms(plan(stream(key, 2), tuple(raised.shape)), wide)
    scale = torch.where(boosted, torch.log(uniform) / shape_parameter, 0.0)
    return (proposal + scale).to(concentration.dtype)


def _marsaglia_tsang(key: Key, alpha: Tensor) -> Tensor:
    """Gamma values of shape 1 or more.

    Marsaglia & Tsang (2000), "A simple method for generating gamma variables", with a fixed number
    of proposals side by side, of which the first accepted one is taken.
    """
    shape = (*alpha.shape, PROPOSALS)
    normal = normals(plan(stream(key, 0), shape), alpha.dtype)
    log_uniform = torch.log(open_uniforms(plan(stream(key, 1), shape), alpha.dtype))
    d = (alpha - 1 / 3).unsqueeze(-1)
    base = 1 + normal / torch.sqrt(9 * d)
    valid = base > 0
    cube = torch.where(valid, base * base * base, 1.0)
    accepted = valid & (log_uniform < 0.5 * normal * normal + d - d * cube + d * torch.log(cube))
    return first_accepted(d * cube, accepted)


def first_accepted(proposals: Tensor, accepted: Tensor) -> Tensor:
    """The first accepted proposal along the last dimension; the first of all if there is none."""
    place = accepted.to(torch.int64).argmax(-1, keepdim=True)
    return proposals.gather(-1, place).squeeze(-1)
