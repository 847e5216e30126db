"""The evidence lower bound, estimated from samples of the guide."""

from __future__ import annotations

from typing import final

import attrs
from torch import Tensor

from ..._run._sites import Site
from ...random import Key
from ._densities import guide_densities, log_densities, score_term, scored_sites, split_terms, total
from ._elbo import ELBOParts, ParticleELBO
from ._matching import run_matched
from ._model_and_guide import (
    PairSession,
)


@final
@attrs.frozen
class Trace_ELBO(ParticleELBO):
    r"""The negative evidence lower bound, estimated from samples of the guide.

    $$-\mathbb{E}_{q(z)}[\log p(x | z)] + \beta \, \mathrm{KL}(q(z) \,\|\, p(z))$$

    Gradients flow through reparameterised draws; a site without them (a discrete one) gets the
    score-function estimator, Rao-Blackwellised over plates as in Pyro.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor $\beta$ of the KL term, a number or a 0-d tensor. Annealing is
            a new loss at each step: nothing is traced anew if the weight comes as a tensor.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    Source: ``pyro.infer.Trace_ELBO``; Ranganath et al. 2014, "Black Box Variational Inference".

    Examples:
        >>> import attrs, torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import SVI, AutoNormal, Trace_ELBO
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> Trace_ELBO(num_particles=10).loss(model, model, {}, random.key(0)).abs()  # q is p
        tensor(0.)

        The weight of the KL term as an argument of a step:

        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))
        >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        >>> def step(state, weight):
        ...     return attrs.evolve(svi, loss=Trace_ELBO(kl_weight=weight)).step(state)
        >>> state = svi.init(random.key(0))
        >>> for weight in torch.linspace(0.0, 1.0, 5):
        ...     state, loss = step(state, weight)
        >>> state.step
        tensor(5)
    """

    def _particle(self, session: PairSession, key: Key) -> ELBOParts:
        model_sites, guide_sites = run_matched(session, key)
        log_p, log_q = log_densities(model_sites), guide_densities(model_sites, guide_sites)
        log_likelihood, kl = split_terms(model_sites, log_p, log_q)
        scored = scored_sites(guide_sites)
        if not scored:
            return self._parts(log_likelihood, kl, None)
        costs = {name: self._cost(model_sites[name], log_p[name]) for name in log_p}
        entropies = {name: self._weighted(density) for name, density in log_q.items()}
        rewards = [(model_sites[name].plates, cost.detach()) for name, cost in costs.items()]
        rewards += [(guide_sites[name].plates, -q.detach()) for name, q in entropies.items()]
        surrogate = total(costs) - total({n: q for n, q in entropies.items() if n not in scored})
        for name in scored:
            surrogate = surrogate + score_term(guide_sites[name], rewards)
        return self._parts(log_likelihood, kl, surrogate)

    def _cost(self, site: Site, log_density: Tensor) -> Tensor:
        return self._weighted(log_density) if site.kind == "latent" else log_density
