"""The densities of the sites of a guide and its model, as the bounds take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add

import attrs
import torch
from torch import Tensor

from ..._compat._distributions import (
    both_masks,
    is_delta,
    log_prob,
    own_mask,
)
from ..._compat._plates import Plates, summed_to
from ..._run._sites import Site
from ._model_and_guide import (
    feeds_model,
)


def scored_sites(guide_sites: Mapping[str, Site]) -> list[str]:
    """The names of the guide's draws that are not reparameterised."""
    return [n for n, s in guide_sites.items() if s.kind == "latent" and not s.fn.has_rsample]


def score_term(site: Site, rewards: Iterable[tuple[Plates, Tensor]]) -> Tensor:
    """The score of a site times what comes of its draw, in the site's own plates.

    The score is neither scaled nor masked: the rewards are.
    """
    score = log_prob(site.fn, site.value)
    return (summed_to(site.plates, rewards) * score).sum()


def guide_densities(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]
) -> dict[str, Tensor]:
    """The log density of every site of the guide that counts in the bound.

    A site that the model masks out is no part of the model there, so what the guide draws for it
    does not count. Nor does a draw of the guide's own that no ``Delta`` site carries on: the bound
    is then the mean, over these draws, of the bounds of the guide that has them.
    """
    return {
        name: _masked_like(guide_sites[name], model_sites.get(name)).log_density()
        for name in counted(guide_sites)
    }


def counted(guide_sites: Mapping[str, Site]) -> list[str]:
    """The names of the guide's sites that count in the bound, see ``guide_densities()``."""
    carried = any(is_delta(s.fn) for s in guide_sites.values() if feeds_model(s))
    return [
        name
        for name, site in guide_sites.items()
        if site.kind == "factor" or (site.kind == "latent" and (carried or not site.auxiliary))
    ]


def _masked_like(site: Site, model_site: Site | None) -> Site:
    """A guide's site, masked where the model's is."""
    if model_site is None or model_site.kind != "latent" or site.own_mask:
        return site
    inner = own_mask(model_site.fn)
    # A prior that is masked as a whole, .mask(False), is a flat one, whose value counts elsewhere.
    inner = inner if isinstance(inner, Tensor) else None
    mask = both_masks(site.mask, model_site.mask, inner)
    return site if mask is site.mask else attrs.evolve(site, mask=mask)


def log_densities(sites: Mapping[str, Site]) -> dict[str, Tensor]:
    """The log density of every site but the indices of plates."""
    return {s.name: s.log_density() for s in sites.values() if s.kind != "subsample"}


def split_terms(
    model_sites: Mapping[str, Site], log_p: Mapping[str, Tensor], log_q: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The log likelihood, from the sites that are not latent, and the KL term, from the others."""
    latent = {name: p for name, p in log_p.items() if model_sites[name].kind == "latent"}
    other = {name: p for name, p in log_p.items() if name not in latent}
    return total(other), total(log_q) - total(latent)


def total(log_densities: Mapping[str, Tensor]) -> Tensor:
    """The sum over all sites and all their elements."""
    sums = [each.sum() if each.dim() else each for each in log_densities.values()]
    return reduce(add, sums) if sums else torch.zeros(())
