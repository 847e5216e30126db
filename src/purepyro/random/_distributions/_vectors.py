"""Keyed draws of vectors and matrices whose own code is not legal under torch.func."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as base

from ..._compat._untyped import shape_of, tensor
from .._batch_invariant import matmul, matvec, row_sum
from .._bits._shape import plan
from .._bits._words import normals, uniforms
from .._key import Key
from .._primitives._continuous import dirichlet
from .._primitives._gamma import first_accepted, standard_gamma
from .._source import KeySource
from .._streams import stream
from ._scalars import circular, wrapped
from ._simple import above_zero

Shape = tuple[int, ...]

BINGHAM_PROPOSALS = 192
"""Proposals for the first angle of a bivariate von Mises pair. Up to a correlation of 0.9 of the
geometric mean of the concentrations, 0.14 of them or more are accepted (measured up to
concentrations of 1e4): 192 fail together with probability 3e-13. Stronger correlations make two
peaks, which the method of Kent, Ganeiber & Mardia (2018) bounds ever more loosely; where no
proposal is accepted, the draw is NaN.
"""


def multivariate_normal(source: KeySource, d: base.MultivariateNormal, shape: Shape) -> Tensor:
    """`loc + L z`."""
    loc = tensor(d, "loc")
    key = source.next_key(loc.device)
    normal = normals(plan(key, (*shape, *d.batch_shape, *d.event_shape)), loc.dtype)
    return loc + matvec(tensor(d, "_unbroadcasted_scale_tril"), normal)


def low_rank_multivariate_normal(
    source: KeySource, d: base.LowRankMultivariateNormal, shape: Shape
) -> Tensor:
    """`loc + W y + sqrt(diag) z`."""
    loc, factor = tensor(d, "loc"), tensor(d, "_unbroadcasted_cov_factor")
    full = (*shape, *d.batch_shape, *d.event_shape)
    narrow = (*full[:-1], factor.shape[-1])
    low = normals(plan(source.next_key(loc.device), narrow), loc.dtype)
    own = normals(plan(source.next_key(loc.device), full), loc.dtype)
    spread = torch.sqrt(tensor(d, "_unbroadcasted_cov_diag"))
    return loc + matvec(factor, low) + spread * own


def multivariate_student_t(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A multivariate normal vector over the root of a chi-squared number."""
    df, loc = tensor(d, "df"), tensor(d, "loc")
    batch = (*shape, *shape_of(d, "batch_shape"))
    key = source.next_key(df.device)
    normal = normals(plan(key, (*batch, loc.shape[-1])), df.dtype)
    half = standard_gamma(source.next_key(df.device), (df / 2).expand(batch))
    scaled = normal * torch.rsqrt(above_zero(half * 2) / df).unsqueeze(-1)
    return loc + matvec(tensor(d, "scale_tril"), scaled)


def projected_normal(source: KeySource, d: object, shape: Shape) -> Tensor:
    """The direction of a normal vector."""
    centre = tensor(d, "concentration")
    full = (*shape, *shape_of(d, "batch_shape"), *shape_of(d, "event_shape"))
    vector = normals(plan(source.next_key(centre.device), full), centre.dtype) + centre
    return vector / torch.sqrt(row_sum(vector * vector, keepdim=True))


def dirichlet_vector(source: KeySource, d: base.Dirichlet, shape: Shape) -> Tensor:
    """Normalised gamma numbers."""
    concentration = tensor(d, "concentration")
    key = source.next_key(concentration.device)
    return dirichlet(key, concentration.expand((*shape, *concentration.shape)))


def lkj_cholesky(source: KeySource, d: base.LKJCholesky, shape: Shape) -> Tensor:
    """Lewandowski, Kurowicka & Joe (2009), the onion method, all rows at once.

    Row k, from 0, has a length whose square is Beta(k / 2, c + (d - 1 - k) / 2). torch (2.13) takes
    k - 1/2 for k / 2, which from the third row on is not the distribution of its `log_prob`.
    """
    concentration = tensor(d, "concentration").detach().unsqueeze(-1)
    full = (*shape, *d.batch_shape, *d.event_shape)
    row = torch.arange(full[-1], dtype=concentration.dtype, device=concentration.device)
    # The first row is 1 whatever is drawn for it.
    half = torch.where(row == 0, 1.0, row) / 2
    rest_half = concentration + (full[-1] - 1 - row) / 2
    pair = torch.stack([half.expand(rest_half.shape), rest_half], -1)
    key = source.next_key(concentration.device)
    squared = dirichlet(key, pair.expand((*full[:-1], 2))).select(-1, 0)
    key = source.next_key(concentration.device)
    normal = normals(plan(key, full), squared.dtype).tril(-1)
    length = torch.sqrt(row_sum(normal * normal, keepdim=True))
    # The first row has no entry below the diagonal.
    direction = normal / torch.where(length == 0, 1.0, length)
    below = torch.sqrt(squared).unsqueeze(-1) * direction
    rest = 1 - row_sum(below * below)
    diagonal = torch.sqrt(rest.clamp(min=torch.finfo(below.dtype).tiny))
    return below + torch.diag_embed(diagonal)


def wishart(source: KeySource, d: base.Wishart, shape: Shape) -> Tensor:
    """Bartlett (1933). Results singular to rounding are not drawn again, as torch does."""
    df, factor = tensor(d, "df"), tensor(d, "_unbroadcasted_scale_tril")
    size = factor.shape[-1]
    batch = (*shape, *d.batch_shape)
    down = torch.arange(size, dtype=factor.dtype, device=factor.device)
    half = ((df.unsqueeze(-1) - down) / 2).expand((*batch, size))
    squared = above_zero(standard_gamma(source.next_key(factor.device), half) * 2)
    diagonal = torch.sqrt(squared).clamp(min=torch.finfo(factor.dtype).eps)
    key = source.next_key(factor.device)
    noise = normals(plan(key, (*batch, size, size)), factor.dtype).tril(-1)
    root = matmul(factor, noise + torch.diag_embed(diagonal))
    return matmul(root, root.mT)


def bivariate_von_mises(source: KeySource, d: object, shape: Shape) -> Tensor:
    """Kent, Ganeiber & Mardia (2018), section 3, in float64, with a fixed number of proposals."""
    names = ("phi_loc", "psi_loc", "phi_concentration", "psi_concentration", "correlation")
    phi_loc, psi_loc, first, second, correlation = (
        tensor(d, name).detach().to(torch.float64) for name in names
    )
    full = (*shape, *shape_of(d, "batch_shape"))
    key = source.next_key(phi_loc.device)
    phi = _bingham_angle(key, first, second, correlation, full)
    bent = correlation * torch.sin(phi)
    alpha = torch.sqrt(second * second + bent * bent)
    psi = circular(source, torch.atan(bent / second), alpha, full)
    pair = torch.stack([wrapped(phi + phi_loc), wrapped(psi + psi_loc)], -1)
    return pair.to(tensor(d, "phi_loc").dtype)


def _bingham_angle(
    key: Key, first: Tensor, second: Tensor, correlation: Tensor, full: Shape
) -> Tensor:
    """The marginal of the first angle, by proposals with an angular Gaussian law."""
    curve = 0.5 * (first - correlation * correlation / second)
    least = curve.clamp(max=0.0)
    bends = (-least).unsqueeze(-1), (curve - least).unsqueeze(-1)
    spread = 2 * torch.abs(curve)
    # The bound is tightest where sum_i 1 / (b + 2 bend_i) = 1, a quadratic for two axes.
    b = (((2 - spread) + torch.sqrt(spread * spread + 4)) / 2).unsqueeze(-1)
    wide = (*full, BINGHAM_PROPOSALS)
    pair = normals(plan(stream(key, 0), (2, *wide)), torch.float64)
    x, y = (axis * torch.rsqrt(1 + 2 * bend / b) for axis, bend in zip(pair, bends, strict=True))
    length = torch.sqrt(x * x + y * y)
    x, y = x / length, y / length
    side, kappa = second.unsqueeze(-1), first.unsqueeze(-1)
    bent = correlation.unsqueeze(-1) * y
    target = kappa * (x - 1) + least.unsqueeze(-1)
    target = target + _log_bessel(torch.sqrt(side * side + bent * bent)) - _log_bessel(side)
    form = bends[0] * x * x + bends[1] * y * y
    bound = 1 - b / 2 + torch.log(b / 2 + form)
    uniform = uniforms(plan(stream(key, 1), wide), torch.float64)
    accepted = uniform < torch.exp(target + bound)
    angle = torch.atan2(y, x)
    return torch.where(accepted.any(-1), first_accepted(angle, accepted), torch.nan)


def _log_bessel(value: Tensor) -> Tensor:
    return torch.log(torch.special.i0e(value)) + value
