"""Where a fit starts: the parameters of model and guide, after a first look at both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import attrs
import torch

from .._buffers import Buffers
from .._errors import PurepyroError, ShapeError, SupportError, describe
from .._execute import root_of
from .._init import initial
from .._isolation._boundary import unvalidated
from .._sites import Site
from .._types import Params, State
from ..random import Key, name_key
from ._elbo import run_both
from ._nonfinite import Batch, OnNonfinite, Suspects, at_init, has_nan


@attrs.frozen
class Start:
    """A model and a guide that are about to be fitted.

    Attributes:
        model: The model.
        guide: The guide.
        sums_out: Whether the loss sums out discrete sites that the guide does not have.
        on_nonfinite: What happens at numbers that are not finite.
    """

    model: Callable[..., object]
    guide: Callable[..., object]
    sums_out: bool
    on_nonfinite: OnNonfinite

    def look(
        self, params: Params, key: Key, batch: Batch
    ) -> tuple[Mapping[str, Site], Mapping[str, Site]]:
        """The sites of model and guide, which must match as far as the loss needs them to."""
        return run_both(self.model, self.guide, params, key, *batch, sums_out=self.sums_out)

    def values(self, key: Key, batch: Batch) -> tuple[Params, State]:
        """Starting values of both: parameters, and buffers of networks."""
        model = initial(self.model, key, *batch, beside=self.guide)
        guide = initial(self.guide, key, *batch, beside=self.model)
        of_model, of_guide = model.params, guide.params
        # In plain Pyro functions one name is one parameter, wherever it stands.
        both = of_model.keys() & of_guide.keys()
        modules = root_of(self.model) is not None and root_of(self.guide) is not None
        for name in sorted(both):
            if modules or of_model[name].shape != of_guide[name].shape:
                raise ShapeError(
                    f"Model and guide both have a parameter {name!r} ({describe(of_model[name])} "
                    f"and {describe(of_guide[name])}), so one would overwrite the other. Rename "
                    "the guide's."
                )
        _require_one_owner(model.buffers, guide.buffers)
        start = {**guide.buffers.before, **model.buffers.before}
        buffers = {name: buffer.detach().clone() for name, buffer in start.items()}
        return {**of_guide, **of_model}, buffers

    def checked(
        self, key: Key, batch: Batch, check: Callable[[Params], None]
    ) -> tuple[Params, State]:
        """The same, after a first look: do model and guide match, are the data numbers?

        Args:
            key: The key of the fit.
            batch: The arguments.
            check: Refuses parameters for other reasons.
        """
        seen, fault = name_key(key, "check"), None
        try:
            with unvalidated() if self.on_nonfinite == "ignore" else nullcontext(), torch.no_grad():
                params, buffers = self.values(name_key(key, "init"), batch)
                check(params)
                model_sites, guide_sites = self.look(params, seen, batch)
                warn_without_data(model_sites)
                sites = (*guide_sites.values(), *model_sites.values())
                # Scoring the sites is what makes Pyro check their values, for skipping too.
                bad = self.on_nonfinite != "ignore" and any(has_nan(site) for site in sites)
            if bad and self.on_nonfinite == "raise":
                fault = Suspects(self.model, self.guide).fault(params, [seen], batch)
        except ValueError as error:  # Pyro and torch refuse numbers by these
            if isinstance(error, PurepyroError):
                raise
            with unvalidated(), torch.no_grad():
                params, _ = self.values(name_key(key, "init"), batch)
            fault = Suspects(self.model, self.guide).fault(params, [seen], batch)
            if fault is None:
                raise
            raise SupportError(at_init(fault)) from error
        if fault is not None:
            raise SupportError(at_init(fault))
        return params, buffers


def _require_one_owner(model: Buffers, guide: Buffers) -> None:
    """Refuse two networks with one name, of which each would take the other's buffers."""
    of_model, of_guide = model.originals, guide.originals
    for name in sorted(of_model.keys() & of_guide.keys()):
        if of_model[name] is not of_guide[name]:
            raise ShapeError(
                f"Model and guide both have a buffer {name!r}, of different networks, so one would "
                "overwrite the other. Rename the guide's field."
            )


def warn_without_data(model_sites: Mapping[str, Site]) -> None:
    """Warn of a fit to nothing: a posterior without data is the prior."""
    kinds = {site.kind for site in model_sites.values()}
    if "latent" in kinds and not kinds & {"observed", "factor"}:
        latent = sorted(name for name, site in model_sites.items() if site.kind == "latent")
        warnings.warn(
            f"The model observed nothing in its first run, so a fit of its latent {latent} ends at "
            "the prior. Pass the data to the fit as to the model, pyro.sample(..., obs=y), or "
            "condition the model on them by poutine.condition.",
            UserWarning,
            stacklevel=2,
        )
