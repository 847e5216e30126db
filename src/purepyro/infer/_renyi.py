"""Renyi's variational bound, and among it that of the importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import final

import attrs
import torch
from torch import Tensor

from .._boundary import Plates
from .._errors import DeclarationError, DtypeError, describe
from .._integers import as_int, as_int_or_none
from .._mapped import How, check_how
from .._types import State, Values
from ..random import Key
from ._both import Both, BufferFlow, Pair
from ._elbo import (
    ELBOParts,
    LossOfParts,
    check_chunk_size,
    check_num_particles,
    log_densities,
    over_particles,
    run_matched,
    split_parts,
)


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
    bound. Plates that hold all sites of the model are rows of their own, each with its own mean
    over the particles.

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
        def particle(
            key: Key, state: State | None
        ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], State]:
            flow = BufferFlow(state)
            rows = pair.together(key, lambda both: self._particle(both, key), flow)
            return rows, flow.state or {}

        rows, after = over_particles(particle, key, self, state)
        if self.num_particles == 1:
            rows = rows[0][None], rows[1][None], rows[2], rows[3]
        bounds, surrogates, log_likelihood, kl = rows
        log_weights = (1.0 - self.alpha) * bounds.detach()
        log_mean = torch.logsumexp(log_weights, 0, keepdim=True) - math.log(self.num_particles)
        loss = -log_mean.sum() / (1.0 - self.alpha)
        weights = (log_weights - log_mean).exp() / self.num_particles
        surrogate = (weights * surrogates).sum()
        # The value is the bound; the gradient is that of the surrogate.
        loss = (loss + surrogate).detach() - surrogate
        return ELBOParts(loss, log_likelihood.mean().detach(), kl.mean().detach()), after

    def _particle(self, both: Both, key: Key) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """By row: the log weight and its surrogate; and the log likelihood and KL of all."""
        model_sites, guide_sites = run_matched(both, key)
        log_p, log_q = log_densities(model_sites), log_densities(guide_sites)
        rows = _common_dims([model_sites[name].plates for name in log_p])
        log_joint = _by_row(log_p, rows)
        reparameterised = {n: q for n, q in log_q.items() if guide_sites[n].fn.has_rsample}
        scored = {n: q for n, q in log_q.items() if n not in reparameterised}
        entropy, score = _by_row(reparameterised, rows), _by_row(scored, rows)
        bound = log_joint - entropy - score
        surrogate = log_joint - entropy
        if scored:
            surrogate = surrogate + self.alpha / (1.0 - self.alpha) * score
        return bound, surrogate, *split_parts(model_sites, log_p, log_q)


def _common_dims(plates: Collection[Plates]) -> set[int]:
    """The dimensions of the plates that hold all sites."""
    common = set.intersection(*(set(frames) for frames in plates)) if plates else set()
    return {frame.dim for frame in common if frame.dim is not None}


def _by_row(log_densities: Mapping[str, Tensor], rows: set[int]) -> Tensor:
    """The sum over all sites and over all dimensions but ``rows``."""
    result = torch.zeros(())
    for density in log_densities.values():
        other = [dim for dim in range(-density.ndim, 0) if dim not in rows]
        result = result + (density.sum(other, keepdim=True) if other else density)
    return result
