"""Renyi's variational bound, and among it that of the importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, final

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import log_prob
from ..._core._types import State, Values
from ..._core._whole_numbers import as_int, as_int_or_none
from ..._errors import DeclarationError, DtypeError, describe
from ..._run._handler import rows_drawn_by
from ..._run._mapping import How, check_how
from ..._run._sites import Site
from ...random import Key
from ._elbo import (
    ELBOParts,
    LossOfParts,
    Particles,
    check_chunk_size,
    check_num_particles,
    counted,
    guide_densities,
    log_densities,
    over_particles,
    run_matched,
    scored_sites,
    split_parts,
)
from ._model_and_guide import Both, BufferFlow, Pair


def _check_alpha(_: object, __: attrs.Attribute[float], alpha: float) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise DtypeError(
            f"alpha is {describe(alpha)}, which is no order of a divergence. Give a finite number "
            "other than 1."
        )
    if alpha == 1:
        raise DeclarationError(
            "alpha is 1, where the bound divides by 1 - alpha = 0. Its limit there is the evidence "
            "lower bound itself: write Trace_ELBO(num_particles=...)."
        )


@final
@attrs.frozen
class RenyiELBO(LossOfParts):
    r"""Minus Renyi's variational bound of order alpha, from samples of the guide.

    .. math:: -\frac{1}{1 - \alpha} \log \frac{1}{K} \sum_{k=1}^K
        \left(\frac{p(x, z_k)}{q(z_k)}\right)^{1 - \alpha}, \qquad z_k \sim q

    With ``alpha=0`` the bound of the importance weighted autoencoder; towards 1 the evidence lower
    bound. Plates that hold all sites of model and guide are rows of their own, each with its own
    mean over the particles; such a plate may be subsampled. The gradient is that of the expected
    loss, also at sites that are not reparameterised: their score is multiplied by the loss less
    what it is without the particle.

    Attributes:
        alpha: The order, any finite number but 1.
        num_particles: The number :math:`K` of draws of the guide. They are a ``vmap`` over keys; a
            single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    There is no KL term to weigh. Of :meth:`parts`, ``log_likelihood`` and ``kl`` are plain means
    over the particles, to watch; they do not add up to the loss.

    Source: ``pyro.infer.RenyiELBO``; Li and Turner 2016, "Renyi Divergence Variational Inference";
    Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import RenyiELBO
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     pyro.sample("z", dist.Normal(x / 2, 1.0))
        >>> x = torch.tensor(1.0)
        >>> loss = RenyiELBO(alpha=0, num_particles=10_000).loss(model, guide, {}, random.key(0), x)
        >>> evidence = dist.Normal(0.0, 2**0.5).log_prob(x)
        >>> bool((loss + evidence).abs() < 0.02)
        True
    """

    alpha: float = attrs.field(default=0.0, validator=_check_alpha)
    num_particles: int = attrs.field(default=2, converter=as_int, validator=check_num_particles)
    chunk_size: int | None = attrs.field(
        default=None, converter=as_int_or_none, validator=check_chunk_size
    )
    map: How = attrs.field(default="vmap", validator=check_how, kw_only=True)

    def _estimate(self, pair: Pair, key: Key, state: Values | None) -> tuple[ELBOParts, State]:
        def particle(key: Key, state: State | None) -> tuple[_Particle, State]:
            flow = BufferFlow(state)
            one = pair.together(key, lambda both: self._particle(both, key), flow)
            return one, flow.state or {}

        how = Particles(self.num_particles, self.chunk_size, self.map, type(self).__name__)
        # A row of one particle must be the same row of data in all of them.
        with rows_drawn_by(key):
            each, after = over_particles(particle, key, how, state)
        if self.num_particles == 1:
            each = _Particle(*(part[None] for part in each))
        scale = each.scale.detach()[0]
        log_weights = (1.0 - self.alpha) * each.bound.detach()
        losses = (_log_mean(log_weights) / (self.alpha - 1.0)).detach()
        # The value is the bound; the gradient is that of the surrogate: along the paths of the
        # draws by the weights, and by the scores of those that have no path.
        surrogate = torch.softmax(log_weights, 0) * each.bound
        surrogate = surrogate - (losses - self._of_the_others(log_weights)) * each.score
        surrogate = (scale * surrogate).sum()
        loss = ((scale * losses).sum() + surrogate).detach() - surrogate
        means = each.log_likelihood.mean().detach(), each.kl.mean().detach()
        return ELBOParts(loss, *means), after

    def _of_the_others(self, log_weights: Tensor) -> Tensor:
        """The loss without each particle in turn: what it is compared with, for less noise."""
        if self.num_particles == 1:
            return torch.zeros_like(log_weights)
        before, after = log_weights.logcumsumexp(0), log_weights.flip(0).logcumsumexp(0).flip(0)
        none = torch.full_like(log_weights[:1], -math.inf)
        others = torch.logaddexp(torch.cat([none, before[:-1]]), torch.cat([after[1:], none]))
        losses = (others - math.log(self.num_particles - 1)) / (self.alpha - 1.0)
        return torch.where(losses.isfinite(), losses, 0.0)

    def _particle(self, both: Both, key: Key) -> _Particle:
        model_sites, guide_sites = run_matched(both, key)
        rows = _rows(model_sites, guide_sites)
        if self.num_particles > 1:
            _check_subsamples(model_sites, rows)
        log_p, log_q = log_densities(model_sites), guide_densities(model_sites, guide_sites)
        parts = split_parts(model_sites, log_p, log_q)
        scale = _common_scale(model_sites, guide_sites, rows)
        if isinstance(scale, Tensor) or scale != 1.0:
            model_sites, guide_sites = _without(scale, model_sites), _without(scale, guide_sites)
            log_p, log_q = log_densities(model_sites), guide_densities(model_sites, guide_sites)
        scores = {
            name: log_prob(guide_sites[name].fn, guide_sites[name].value)
            for name in scored_sites(guide_sites)
        }
        bound = _by_row(log_p, rows) - _by_row(log_q, rows)
        score = _by_row(scores, rows) + torch.zeros_like(bound)
        return _Particle(bound + torch.zeros_like(score), score, torch.as_tensor(scale), *parts)


class _Particle(NamedTuple):
    """One draw of the guide: by row its log weight and score, and the parts of all rows."""

    bound: Tensor
    score: Tensor
    scale: Tensor
    log_likelihood: Tensor
    kl: Tensor


def _log_mean(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def _rows(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> set[int]:
    """The dimensions of the plates that hold all sites, so that what they hold has its own mean.

    A guide's site without the plate may still have the rows, as a dimension of its batch. If it is
    not reparameterised, it may have a part in the weights of other rows, which its score has to
    know.
    """
    of_model = [set(_vectorized(s)) for s in model_sites.values() if s.kind != "subsample"]
    common = set.intersection(*of_model) if of_model else set()
    scored = set(scored_sites(guide_sites))
    for name in {*counted(guide_sites), *scored}:
        site = guide_sites[name]
        shape, own = site.fn.batch_shape, set(_vectorized(site))
        common = {
            (plate, dim)
            for plate, dim in common
            if (plate, dim) in own
            or (name not in scored and len(shape) >= -dim and shape[dim] != 1)
        }
    return {dim for _, dim in common}


def _vectorized(site: Site) -> list[tuple[str, int]]:
    return [(frame.name, frame.dim) for frame in site.plates if frame.dim is not None]


def _check_subsamples(model_sites: Mapping[str, Site], rows: set[int]) -> None:
    """Refuse a subsample of rows that share a latent site: the mean of weights is no bound then."""
    for name, site in model_sites.items():
        for frame in site.plates:
            whole = frame.full_size is None or frame.full_size == frame.size
            if site.kind != "subsample" and not whole and frame.dim not in rows:
                raise DeclarationError(
                    f"The site {name!r} lies in the subsampled plate {frame.name!r}, which does "
                    "not hold all sites, so RenyiELBO would take powers of a likelihood that is "
                    "itself a guess, and its loss would be no bound. Use Trace_ELBO, or all rows: "
                    "leave subsample_size out."
                )


def _common_scale(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site], rows: set[int]
) -> Tensor | float:
    """The scale that all sites have in common, which belongs outside of the mean of weights."""
    sites = [
        site
        for site in (*model_sites.values(), *(guide_sites[name] for name in counted(guide_sites)))
        if site.kind not in ("subsample", "deterministic")
    ]
    if not sites:
        return 1.0
    first = sites[0].scale
    if isinstance(first, Tensor):
        same = first.ndim == 0 and all(site.scale is first for site in sites)
    else:
        same = all(not isinstance(s.scale, Tensor) and s.scale == first for s in sites)
    if same:
        return first
    scale = 1.0
    for frame in sites[0].plates:
        if frame.dim in rows and frame.full_size is not None:
            scale = scale * frame.full_size / frame.size
    return scale


def _without(scale: Tensor | float, sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites with the scale taken out."""
    return {
        name: attrs.evolve(site, scale=1.0 if site.scale is scale else site.scale / scale)
        for name, site in sites.items()
    }


def _by_row(log_densities: Mapping[str, Tensor], rows: set[int]) -> Tensor:
    """The sum over all sites and over all dimensions but ``rows``."""
    result = torch.zeros(())
    for density in log_densities.values():
        other = [dim for dim in range(-density.ndim, 0) if dim not in rows]
        result = result + (density.sum(other, keepdim=True) if other else density)
    return result
