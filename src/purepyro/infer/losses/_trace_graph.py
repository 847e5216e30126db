"""The evidence lower bound with costs attributed to the draws that they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import Plates
from ..._errors import DeclarationError
from ..._run._sites import Site
from ...random import Key
from ._elbo import (
    ELBOParts,
    ParticleELBO,
    guide_densities,
    log_densities,
    run_matched,
    score_term,
    scored_sites,
    split_parts,
)
from ._model_and_guide import Both
from ._provenance import Marking, Provenance


@final
@attrs.frozen
class TraceGraph_ELBO(ParticleELBO):
    r"""The negative evidence lower bound, with fewer costs for each score.

    .. math:: -\mathbb{E}_{q(z)}[\log p(x | z)] + \beta \, \mathrm{KL}(q(z) \,\|\, p(z))

    The value is that of :class:`Trace_ELBO`. In its gradient the score of a site that is not
    reparameterised is multiplied only by the costs that depend on the site's draw, in the site's
    own plates, so the noise is less where there are several such sites.

    What depends on a draw is seen by following tensors through torch functions. Python numbers
    (``if k.item() > 0``), a ``torch.autograd.Function`` of one's own and a ``torch.vmap`` inside of
    the model hide a dependence, and the gradient would lack its cost: use :class:`Trace_ELBO`.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor :math:`\beta` of the KL term, a number or a 0-d tensor; to anneal it,
            see :class:`Trace_ELBO`.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    Source: ``pyro.infer.TraceGraph_ELBO``, without its baselines; Schulman et al. 2015, "Gradient
    Estimation Using Stochastic Computation Graphs".

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import init, random
        >>> from purepyro.infer import Trace_ELBO, TraceGraph_ELBO
        >>> def model():
        ...     for name in ("a", "b"):
        ...         pyro.sample(name, dist.Bernoulli(0.3))
        >>> def guide():
        ...     probs = pyro.param("probs", torch.tensor([0.5, 0.5]))
        ...     for name, p in zip(("a", "b"), probs):
        ...         pyro.sample(name, dist.Bernoulli(p))
        >>> params, keys = init(guide, random.key(0)), random.split(random.key(1), 500)
        >>> def noise(loss):
        ...     def gradient(key):
        ...         return torch.func.grad(lambda p: loss.loss(model, guide, p, key))(params)
        ...
        ...     return torch.vmap(gradient)(keys)["probs"].std(0)
        >>> noise(TraceGraph_ELBO()) < noise(Trace_ELBO())
        tensor([True, True])
    """

    def _particle(self, both: Both, key: Key) -> ELBOParts:
        with Provenance() as provenance:
            marked = both._replace(guide=Marking(provenance, _refuse_baseline)(both.guide))
            model_sites, guide_sites = run_matched(marked, key)
            log_p, log_q = log_densities(model_sites), guide_densities(model_sites, guide_sites)
            sources = {id(d): provenance.of(d) for d in (*log_p.values(), *log_q.values())}
        log_likelihood, kl = split_parts(model_sites, log_p, log_q)
        scored = scored_sites(guide_sites)
        if not scored:
            return self._parts(log_likelihood, kl, None)
        costs: list[tuple[frozenset[str], Plates, Tensor]] = []
        for name, density in log_p.items():
            site = model_sites[name]
            cost = self._weighted(density) if site.kind == "latent" else density
            costs.append((sources[id(density)], site.plates, cost))
        surrogate = sum((cost.sum() for _, _, cost in costs), start=torch.zeros(()))
        for name, density in log_q.items():
            entropy = self._weighted(density)
            costs.append((sources[id(density)], guide_sites[name].plates, -entropy))
            if name not in scored:
                surrogate = surrogate - entropy.sum()
        for name in scored:
            surrogate = surrogate + _score_term(guide_sites[name], costs)
        return self._parts(log_likelihood, kl, surrogate)


def _score_term(site: Site, costs: list[tuple[frozenset[str], Plates, Tensor]]) -> Tensor:
    """The score of a site times the costs that depend on it."""
    below = [(plates, cost.detach()) for names, plates, cost in costs if site.name in names]
    return score_term(site, below) if below else torch.zeros(())


def _refuse_baseline(name: str, infer: Mapping[str, object]) -> None:
    if "baseline" in infer:
        raise DeclarationError(
            f'The site {name!r} has infer={{"baseline": ...}}, which TraceGraph_ELBO does not '
            "know, so the noise would silently stay. Leave it out and take more particles, "
            "TraceGraph_ELBO(num_particles=...), or TraceEnum_ELBO for a site with few values."
        )
