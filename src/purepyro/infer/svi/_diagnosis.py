"""Why a step has no finite loss: model and guide are run again, to find the site to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import torch

from ..._compat._functorch import plain
from ..._compat._isolation import unvalidated
from ..._core._types import Params
from ..._errors import SupportError, describe
from ..._run._sites import Site
from ...random import Key, fold_in, split
from ..losses._model_and_guide import BufferFlow, ModelGuidePair, PairSession, values_for_model
from ._nonfinite import Batch, StepRecord, nonfinite_names
from ._state import SVIState
from ._steps import Settings


def diagnose(
    svi: Settings, now: StepRecord[SVIState], previous: StepRecord[SVIState] | None
) -> str | None:
    """Why a step of a run has no finite loss, as a sentence; ``None``: no site shows it.

    Args:
        svi: The fit.
        now: The step.
        previous: The one before it, whose gradient may be the cause.
    """
    both, state = (svi.model, svi.guide), now.before
    step = int(state.step)
    bad = nonfinite_names(state.params)
    if not bad:
        site = nonfinite_site(*both, state.params, _keys(svi, state), now.batch)
        return None if site is None else f"Step {step} has no finite loss: {site}. {_ADVICE}"
    if previous is None:
        return f"The parameters {bad} are not finite before step {step}. {_ADVICE}"
    before = previous.before
    site = nonfinite_gradient(*both, before.params, _keys(svi, before), previous.batch)
    reason = site or "the step is too long, or the optimiser's state overflowed"
    return f"Step {step - 1} made the parameters {bad} not finite: {reason}. {_ADVICE}"


_ADVICE = (
    "Look at the data and the priors there, or take shorter steps; SVI(..., on_nonfinite='skip') "
    "leaves such steps out."
)


def _keys(svi: Settings, state: SVIState) -> list[Key]:
    """The key of each particle of the state's next step."""
    key, particles = fold_in(state.key, state.step), getattr(svi.loss, "num_particles", 1)
    if particles == 1:
        return [key]
    return [Key(each) for each in split(key, particles)]


def nonfinite_site(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Params,
    keys: Iterable[Key],
    batch: Batch,
) -> str | None:
    """The first site whose value or density is not finite, as a sentence."""
    with unvalidated(), torch.no_grad():
        for key in keys:
            for owner, site in _sites(model, guide, params, key, batch):
                cause = site if isinstance(site, str) else _nonfinite(owner, site)
                if cause is not None:
                    return cause
    return None


def nonfinite_gradient(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Params,
    keys: Iterable[Key],
    batch: Batch,
) -> str | None:
    """The first site whose log density has a gradient that is not finite, as a sentence."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with unvalidated(), torch.enable_grad():
        for key in keys:
            for owner, site in _sites(model, guide, leaves, key, batch):
                if isinstance(site, str) or site.kind == "subsample":
                    continue
                density = site.log_density().sum()
                if not density.requires_grad:
                    continue
                gradients = torch.autograd.grad(
                    density, list(leaves.values()), retain_graph=True, materialize_grads=True
                )
                bad = [
                    name
                    for name, gradient in zip(leaves, gradients, strict=True)
                    if not bool(gradient.isfinite().all())
                ]
                if bad:
                    return (
                        f"the log density of the site {site.name!r} of the {owner} has a "
                        f"gradient with respect to {bad} that is not finite"
                    )
    return None


def _sites(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Params,
    key: Key,
    batch: Batch,
) -> Iterable[tuple[str, Site]] | Iterable[tuple[str, Site | str]]:
    """The sites of the guide, then of the model; or the sentence that a run refused with."""
    pair, flow = ModelGuidePair(model, guide, params, *batch), BufferFlow(strict=False)
    with (session := PairSession(pair, key, flow)), session:
        guided = _scored(session.run_guide(key).sites)
    for site in guided.values():
        yield "guide", site
    try:
        with (session := PairSession(pair, key, flow)), session:
            modelled = _scored(session.run_model(key, values_for_model(guided)).sites)
    except SupportError as error:
        yield "model", str(error)
        return
    for site in modelled.values():
        yield "model", site


def _scored(sites: dict[str, Site]) -> dict[str, Site]:
    """Sites scored while their transforms remember them; what cannot be scored is told later."""
    for site in sites.values():
        with suppress(Exception):
            site.log_density()
    return sites


def _nonfinite(owner: str, site: Site) -> str | None:
    """What of a site is not finite."""
    if site.kind == "subsample":
        return None
    what = f"{site.kind} site {site.name!r} of the {owner}"
    value, density = site.value, site.log_density()
    bad = int((~value.isfinite()).sum())
    # A distribution may know what to do with NaN, and a mask may hide it.
    if bad and (site.kind == "deterministic" or not bool(density.isfinite().all())):
        numbers = f"{bad} of its {value.numel()} numbers" if value.ndim else f"its {value.item()}"
        return f"the value of the {what} ({describe(value)}) is not finite ({numbers})"
    bad = int((~density.isfinite()).sum())
    if not bad:
        return None
    first = density[~density.isfinite()].flatten()[0].item()
    numbers = f"{first}"
    if density.ndim:
        numbers = f"{bad} of its {density.numel()} numbers, the first {first}"
    at = ""
    if value.numel():
        span = f"{value.min().item():.4g} to {value.max().item():.4g}"
        at = f", under its {_kind(site)} at a value {describe(value)} of {span}"
    return f"the log density of the {what} is not finite ({numbers}){at}"


def _kind(site: Site) -> str:
    """The distribution's name, without wrappers such as ``Independent``."""
    fn: object = site.fn
    while True:
        inner: object = getattr(fn, "base_dist", None)
        if inner is None:
            return type(fn).__name__
        fn = inner


def at_init(cause: str) -> str:
    """The message for a cause that is there before the first step."""
    return (
        f"SVI.init: {cause}, so the loss would not be finite from the first step. Mend the data or "
        "the model; with SVI(..., on_nonfinite='ignore') init does not look."
    )


def has_nan(site: Site) -> bool:
    """Whether a density is seen to be no number."""
    if site.kind == "subsample":
        return False
    seen = plain(site.log_density())
    return seen is not None and bool(seen.isnan().any())
