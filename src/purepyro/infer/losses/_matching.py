"""Runs of a guide and its model whose sites match; what does not is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping

from ..._compat._distributions import (
    is_delta,
    is_factor,
    says_rsample,
)
from ..._compat._pyro_guides import is_guide_messenger
from ..._errors import (
    DeclarationError,
    MissingNameError,
    UnknownNameError,
)
from ..._run._sites import Site
from ...random import Key
from ._model_and_guide import (
    BufferFlow,
    ModelGuidePair,
    PairSession,
    feeds_model,
    run_model_and_guide,
)


def run_matched(
    session: PairSession, key: Key, guide: Callable[..., object] | None = None
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The sites of the model at the guide's values, and of the guide, which fits the model.

    Args:
        session: The model and its guide.
        key: The key of both runs.
        guide: The session's guide as it is to be run, if that is wrapped.
    """
    model_sites, guide_sites = run_model_and_guide(session, key, guide)
    guide_sites = own_sites(session.guide, guide_sites)
    _check_match(model_sites, guide_sites, set())
    _warn_of_marks(model_sites, guide_sites)
    return model_sites, guide_sites


def run_scored(
    pair: ModelGuidePair, key: Key, *, sums_out: bool
) -> tuple[dict[str, Site], dict[str, Site]]:
    """The same for a first look, with all sites scored while their transforms remember them.

    Where a loss ``sums_out`` discrete sites, the guide may do without them.
    """
    with (session := PairSession(pair, key, BufferFlow(strict=False))), session:
        model_sites, guide_sites = run_model_and_guide(session, key)
        for site in (*guide_sites.values(), *model_sites.values()):
            if site.kind != "subsample":
                site.log_density()
    _refuse_swapped(model_sites, guide_sites)
    guide_sites = own_sites(session.guide, guide_sites)
    discrete = {
        name
        for name, site in model_sites.items()
        if getattr(site.fn, "has_enumerate_support", False)
    }
    _check_match(model_sites, guide_sites, discrete if sums_out else set())
    return model_sites, guide_sites


def own_sites(guide: Callable[..., object], sites: Mapping[str, Site]) -> dict[str, Site]:
    """The sites of a guide's run that are the guide's: its draws, and corrections by factors.

    What it observes draws nothing, so it is no part of the density of its draws, and counted as one
    it would take the bound below the evidence. A guide of Pyro's that runs the model itself meets
    the model's data and factors on its way.

    Raises:
        DeclarationError: if a factor does not say of which draws it is, or looks like an
            observation.
    """
    messenger = is_guide_messenger(guide)
    own: dict[str, Site] = {}
    for name, site in sites.items():
        if site.kind in ("latent", "subsample"):
            own[name] = site
        elif site.kind == "factor" and not messenger:
            if is_factor(site.fn):
                _check_factor(site)
                own[name] = site
            elif is_delta(site.fn):
                raise DeclarationError(
                    f"The guide's site {name!r} is an observed Delta, which draws nothing, so its "
                    "log_density would not count. Write pyro.factor"
                    f"({name!r}, log_density, has_rsample=True) for a correction of log q."
                )
    return own


def _check_factor(site: Site) -> None:
    if not says_rsample(site.fn):
        raise DeclarationError(
            f"The guide's pyro.factor({site.name!r}, ...) does not say has_rsample. In a guide a "
            "factor is added to log q, such as the Jacobian of a transformed draw, so it is seldom "
            "what a model's factor is. Write has_rsample=True if it comes from reparameterised "
            "draws, has_rsample=False if not; the gradient is right with both. If the guide runs "
            f"the model's code, hide it: poutine.block(guide, hide=[{site.name!r}])."
        )


def check_rows(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    """Refuse draws for a subsample of rows that the model does not know of."""
    for name, site in guide_sites.items():
        own = {frame.name for frame in site.plates if guide_sites.get(frame.name) is not None}
        if own and feeds_model(site) and name in model_sites:
            lost = sorted(own - {frame.name for frame in model_sites[name].plates})
            if lost:
                raise UnknownNameError(
                    f"The guide draws the site {name!r} in the subsampled plate {lost[0]!r}, and "
                    "the model in none of this name, so it cannot take the same rows. Give the "
                    "plate the same name in both."
                )


def _check_match(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site], optional: set[str]
) -> None:
    """Refuse a guide whose sites are not the model's latent ones, but for the ``optional``."""
    latent = {name for name, site in model_sites.items() if site.kind == "latent"}
    drawn = {n for n, s in guide_sites.items() if feeds_model(s) and s.kind != "subsample"}
    drawn |= latent & optional
    if latent == drawn:
        check_rows(model_sites, guide_sites)
        return
    missing, extra = sorted(latent - drawn), sorted(drawn - latent)
    if missing:
        marked = [name for name in missing if model_sites[name].marked]
        hint = f" {marked} are marked for enumeration: TraceEnum_ELBO sums them out." * bool(marked)
        raise MissingNameError(
            f"The guide has no site for the model's latent {missing}, so their posterior would be "
            "their prior. Add pyro.sample statements of these names to the guide; if they should "
            f"be observed, pass the data.{hint}{why_not_drawn(missing, guide_sites)}"
        )
    raise UnknownNameError(
        f"The guide has the sites {extra}, which are not latent in the model; its latent ones are "
        f"{sorted(latent)}. Rename them, or mark them as the guide's own by "
        'pyro.sample(..., infer={"is_auxiliary": True}).'
    )


def why_not_drawn(missing: Iterable[str], guide_sites: Mapping[str, Site]) -> str:
    """What to say of guide's sites that have the names of missing ones."""
    marked = [name for name in missing if name in guide_sites and guide_sites[name].auxiliary]
    if not marked:
        return ""
    return f" The guide's own {marked} are marked is_auxiliary: leave out that mark."


def _warn_of_marks(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    """Warn of marks for enumeration, of which no loss but one takes notice."""
    marked = [
        name
        for sites in (model_sites, guide_sites)
        for name, site in sites.items()
        if site.marked and site.kind == "latent"
    ]
    if marked:
        warnings.warn(
            f"The sites {sorted(set(marked))} are marked for enumeration, but this loss draws "
            "them. Use TraceEnum_ELBO to sum them out, or leave the marks out.",
            UserWarning,
            stacklevel=2,
        )


def _refuse_swapped(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
    by_model, by_guide = (
        {site.name for site in sites.values() if site.kind == "observed"}
        for sites in (model_sites, guide_sites)
    )
    if by_guide and not by_model:
        raise DeclarationError(
            f"The guide observes data, {sorted(by_guide)}, and the model none, so they seem to be "
            "in each other's place. The order is SVI(model, guide, optim, loss)."
        )
