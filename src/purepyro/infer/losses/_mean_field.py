"""The evidence lower bound with analytic KL divergences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import final

import attrs
import torch
from torch import Tensor

from ..._compat._pyro import kl_divergence, scale_and_mask
from ..._errors import DeclarationError
from ..._run._sites import Site
from ...random import Key
from ._elbo import ELBOParts, ParticleELBO, guide_densities, run_matched
from ._model_and_guide import Both


@final
@attrs.frozen
class TraceMeanField_ELBO(ParticleELBO):
    r"""The negative evidence lower bound, with analytic KL divergences where these are known.

    .. math:: -\mathbb{E}_{q(z)}[\log p(x | z)]
        + \beta \sum_i \mathbb{E}_q[\mathrm{KL}(q(z_i) \,\|\, p(z_i | \mathrm{pa}(z_i)))]

    A site whose pair of distributions has no known divergence is estimated from its draw. Right if
    no parent of a site in the model depends on this site in the guide, as in a mean-field guide;
    and every site of the guide must be reparameterised.

    Attributes:
        num_particles: How many draws of the guide to average over. They are a ``vmap`` over keys;
            a single particle uses the key itself.
        chunk_size: How many particles to hold in memory at once; ``None``: all.
        kl_weight: The factor :math:`\beta` of the KL term, a number or a 0-d tensor; to anneal it,
            see :class:`Trace_ELBO`.
        map: ``"vmap"``: particles run as one. ``"loop"``: one after the other, which is slower and
            takes what ``vmap`` cannot, such as branches on values; the draws are the same.

    Source: ``pyro.infer.TraceMeanField_ELBO``; Kingma and Welling 2014, "Auto-Encoding Variational
    Bayes", equation 7.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import TraceMeanField_ELBO
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(2.0, 1.0))
        >>> TraceMeanField_ELBO().loss(model, guide, {}, random.key(0))  # no noise: 2 ** 2 / 2
        tensor(2.)
    """

    def _particle(self, both: Both, key: Key) -> ELBOParts:
        model_sites, guide_sites = run_matched(both, key)
        guided = {name: site for name, site in guide_sites.items() if site.kind == "latent"}
        _check_reparameterised(guided)
        _check_order(model_sites, guided)
        log_q = guide_densities(model_sites, guide_sites)
        log_likelihood, kl = torch.zeros(()), torch.zeros(())
        for name, site in model_sites.items():
            if site.kind == "latent":
                kl = kl + _divergence(guided[name], site, log_q[name])
            elif site.kind != "subsample":
                log_likelihood = log_likelihood + site.log_density().sum()
        for name, density in log_q.items():
            if name not in model_sites or model_sites[name].kind != "latent":
                kl = kl + density.sum()  # a factor, or a draw of the guide's own
        return self._parts(log_likelihood, kl, None)


def _divergence(guide_site: Site, model_site: Site, log_q: Tensor) -> Tensor:
    """The KL divergence at a site, analytic or from its draw."""
    analytic = kl_divergence(guide_site.fn, model_site.fn)
    if analytic is None:
        return log_q.sum() - model_site.log_density().sum()
    by_row = analytic.expand(guide_site.fn.batch_shape)
    divergence = scale_and_mask(by_row, model_site.scale, model_site.mask)
    if not _same(guide_site, model_site):
        # Where their scales or masks differ the formula has the model's, and the draw the rest.
        at_draw = attrs.evolve(model_site, fn=guide_site.fn).log_density()
        divergence = divergence + log_q - at_draw
    return divergence.sum()


def _same(guide_site: Site, model_site: Site) -> bool:
    """Whether two sites are seen to have one scale and one mask."""
    one, other = guide_site.scale, model_site.scale
    numbers = not isinstance(one, Tensor) and not isinstance(other, Tensor)
    scales = one is other or (numbers and bool(one == other))
    return scales and guide_site.mask is model_site.mask


def _check_reparameterised(guided: Mapping[str, Site]) -> None:
    for name, site in guided.items():
        if not site.fn.has_rsample:
            raise DeclarationError(
                f"The guide's site {name!r} is a {type(site.fn).__name__}, which is not "
                "reparameterised, so TraceMeanField_ELBO would lose its gradient. Use Trace_ELBO "
                "or TraceGraph_ELBO; for a discrete site with few values, TraceEnum_ELBO."
            )


def _check_order(model_sites: Mapping[str, Site], guided: Mapping[str, Site]) -> None:
    """Warn, as Pyro does, where the order of the sites does not show that the result is right."""
    in_model = [name for name, site in model_sites.items() if site.kind == "latent"]
    in_guide = [name for name in guided if name in model_sites]
    if in_model != in_guide:
        warnings.warn(
            f"The model's latent sites come as {in_model}, the guide's as {in_guide}, so "
            "TraceMeanField_ELBO cannot see that no parent of a site depends on the site in the "
            "guide, without which its KL is wrong. Write the guide's sites in the model's order, "
            "or use Trace_ELBO.",
            UserWarning,
            stacklevel=2,
        )
