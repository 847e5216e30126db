"""Keyed draws of scalar distributions whose own code is not legal under torch.func."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import distributions as base

from ..._compat._untyped import call, part, shape_of, tensor
from .._batch_invariant import power
from .._bits._shape import broadcast, plan
from .._bits._words import normals, open_uniforms, uniforms
from .._primitives import _discrete
from .._primitives._continuous import dirichlet, exponential
from .._primitives._gamma import first_accepted, standard_gamma
from .._source import KeySource
from .._streams import stream
from ._simple import above_zero

Shape = tuple[int, ...]

CIRCULAR_PROPOSALS = 27
"""Proposals for a von Mises number. Best & Fisher (1979) accept the fewest for large
concentrations, 0.6577 of them (all at concentration 0): 27 fail together with probability 3e-13.
"""


def beta(source: KeySource, d: base.Beta, shape: Shape) -> Tensor:
    """The first of two Dirichlet numbers."""
    concentration = tensor(part(d, "_dirichlet"), "concentration")
    key = source.next_key(concentration.device)
    return dirichlet(key, concentration.expand((*shape, *concentration.shape))).select(-1, 0)


def student_t(source: KeySource, d: base.StudentT, shape: Shape) -> Tensor:
    """A normal number over the root of a chi-squared one over its degrees of freedom."""
    df, loc, scale = tensor(d, "df"), tensor(d, "loc"), tensor(d, "scale")
    full = (*shape, *d.batch_shape)
    normal = normals(plan(source.next_key(df.device), full), df.dtype)
    half = standard_gamma(source.next_key(df.device), (df / 2).expand(full))
    return loc + scale * (normal * torch.rsqrt(above_zero(half * 2) / df))


def fisher_snedecor(source: KeySource, d: base.FisherSnedecor, shape: Shape) -> Tensor:
    """The ratio of two chi-squared numbers, each over its degrees of freedom."""
    full = (*shape, *d.batch_shape)
    parts = []
    for name in ("df1", "df2"):
        df = tensor(d, name)
        number = standard_gamma(source.next_key(df.device), (df / 2).expand(full))
        parts.append(above_zero(number / (df / 2)))
    return above_zero(parts[0] / parts[1])


def negative_binomial(source: KeySource, d: base.NegativeBinomial, shape: Shape) -> Tensor:
    """A Poisson count whose rate is a gamma number."""
    total, logits = tensor(d, "total_count"), tensor(d, "logits")
    full = (*shape, *d.batch_shape)
    number = standard_gamma(source.next_key(logits.device), total.detach().expand(full))
    rate = number * torch.exp(logits.detach())
    return _discrete.poisson(source.next_key(logits.device), rate.to(logits.dtype))


def stable(source: KeySource, d: object, shape: Shape) -> Tensor:
    """Chambers, Mallows & Stuck (1976) as Pyro has it, in Nolan's two coordinates.

    Pyro interpolates between stability 0.99 and 1.01 and asks the data whether to. Here both ends
    are always computed: away from the gap they are one point twice.
    """
    alpha, skew = tensor(d, "stability"), tensor(d, "skew")
    loc, scale = tensor(d, "loc"), tensor(d, "scale")
    full = (*shape, *broadcast(alpha.shape, skew.shape, loc.shape, scale.shape))
    uniform = uniforms(plan(source.next_key(alpha.device), full), alpha.dtype)
    angle = (uniform * math.pi - math.pi / 2).unsqueeze(-1)
    wait = exponential(source.next_key(alpha.device), full, alpha.dtype).unsqueeze(-1)
    ends, weights = _stable_ends(alpha)
    number = _chambers(ends, skew.unsqueeze(-1), angle, wait)
    standard = number[..., 0] * weights[0] + number[..., 1] * weights[1]
    if part(d, "coords") == "S":
        shift = skew * torch.tan(math.pi / 2 * alpha)
        standard = torch.where(alpha == 1, standard, standard + shift)
    return loc + scale * standard


def von_mises(source: KeySource, d: base.VonMises, shape: Shape) -> Tensor:
    """Best & Fisher (1979), in float64, with a fixed number of proposals."""
    loc = tensor(d, "loc")
    found = circular(source, tensor(d, "loc"), tensor(d, "concentration"), (*shape, *d.batch_shape))
    return found.to(loc.dtype)


def circular(source: KeySource, loc: Tensor, concentration: Tensor, shape: Shape) -> Tensor:
    """Von Mises numbers of a shape with which the parameters broadcast, in float64."""
    key = source.next_key(loc.device)
    centre, kappa = loc.detach().to(torch.float64), concentration.detach().to(torch.float64)
    kappa = kappa.unsqueeze(-1)
    tau = 1 + torch.sqrt(1 + 4 * kappa * kappa)
    rho = (tau - torch.sqrt(2 * tau)) / (2 * kappa)
    # For small concentrations the exact form cancels; this is its series (torch has it too).
    radius = torch.where(kappa < 1e-5, 1 / kappa + kappa, (1 + rho * rho) / (2 * rho))
    wide = (*shape, CIRCULAR_PROPOSALS)
    z = torch.cos(math.pi * uniforms(plan(stream(key, 0), wide), torch.float64))
    u = open_uniforms(plan(stream(key, 1), wide), torch.float64)
    f = (1 + radius * z) / (radius + z)
    c = kappa * (radius - f)
    chosen = first_accepted(f, (c * (2 - c) - u > 0) | (torch.log(c / u) + 1 - c >= 0))
    side = uniforms(plan(stream(key, 2), shape), torch.float64) - 0.5
    angle = torch.sign(side) * torch.acos(chosen.clamp(-1, 1))
    return wrapped(angle + centre)


def wrapped(angle: Tensor) -> Tensor:
    """An angle in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def by_quantile(source: KeySource, d: object, shape: Shape) -> Tensor:
    """The quantile function of a number in the open unit interval.

    Pyro's own code takes a number in [0, 1), whose 0 gives minus infinity once in 2**24 draws.
    """
    loc = tensor(d, "loc")
    full = (*shape, *shape_of(d, "batch_shape"))
    key = source.next_key(loc.device)
    uniform = open_uniforms(plan(key, full), loc.dtype)
    below_one = uniform.clamp(max=1 - torch.finfo(loc.dtype).eps / 2)
    return call(part(d, "icdf"), below_one)


def _stable_ends(alpha: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The two stabilities to interpolate between, and their weights."""
    value = alpha.detach()
    near = torch.abs(value - 1) <= _RADIUS
    # Moved to the ends in value alone, as in Pyro: the gradient is that of the points themselves.
    down = torch.where(near, 1 - _RADIUS - value, 0.0)
    up = torch.where(near, 1 + _RADIUS - value, 0.0)
    first = torch.where(near, 1 + down / (2 * _RADIUS), 0.5)
    return torch.stack([alpha + down, alpha + up], -1), (first, 1 - first)


_RADIUS = 0.01


def _chambers(alpha: Tensor, beta: Tensor, angle: Tensor, wait: Tensor) -> Tensor:
    """A standard stable number in the coordinates S0."""
    half = math.pi / 2
    eps = torch.finfo(angle.dtype).eps
    inverse = 1 / alpha
    inside = angle.clamp(min=2 * eps - half, max=half - 2 * eps)
    b = beta * torch.tan(half * alpha)
    v = torch.atan(b) - half * alpha + alpha * (inside + half)
    scale = power(torch.rsqrt(1 + b * b) * torch.cos(inside), inverse)
    rest = power(torch.cos(v - inside).clamp(min=eps) / wait, inverse - 1)
    number = torch.sin(v) / scale * rest
    return torch.where(torch.isnan(number), 0.0, number) - b
