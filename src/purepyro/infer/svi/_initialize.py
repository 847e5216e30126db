"""Where a fit starts: the parameters of model and guide, after a first look at both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import attrs
import torch
from torch import Tensor

from ..._compat._isolation import unvalidated
from ..._compat._pyro import is_transforming
from ..._core._types import Params, State
from ..._declare._parameter_fields import one_parameter
from ..._errors import MissingNameError, PurepyroError, ShapeError, SupportError, describe
from ..._networks._buffers import Buffers
from ..._run._execute import Outcome, root_of
from ..._run._init import initial
from ..._run._sites import Site
from ...random import Key, name_key
from ..losses._elbo import log_densities, run_both, total
from ._nonfinite import Batch, OnNonfinite, Suspects, at_init, has_nan
from ._saddle import is_point, stuck_at


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
        model, guide = self._both(key, batch)
        of_model, of_guide = model.params, guide.params
        for name in sorted(of_model.keys() & of_guide.keys()):
            same_shape = of_model[name].shape == of_guide[name].shape
            if not same_shape or not one_parameter(root_of(self.model), root_of(self.guide), name):
                raise ShapeError(
                    f"Model and guide both have a parameter {name!r} ({describe(of_model[name])} "
                    f"and {describe(of_guide[name])}), so one would overwrite the other. Rename "
                    "the guide's; or, where both are meant to be one, let model and guide be "
                    "methods of one Module, or hold the same submodule at the same path."
                )
        _require_one_owner(model.buffers, guide.buffers)
        start = {**guide.buffers.before, **model.buffers.before}
        buffers = {name: buffer.detach().clone() for name, buffer in start.items()}
        return {**of_guide, **of_model}, buffers

    def _both(self, key: Key, batch: Batch) -> tuple[Outcome[object], Outcome[object]]:
        """Either may read what only the other one starts."""
        try:
            guide = initial(self.guide, key, *batch, beside=self.model)
        except MissingNameError:
            model = initial(self.model, key, *batch, beside=self.guide)
            started = model.params
            return model, initial(self.guide, key, *batch, beside=self.model, elsewhere=started)
        started = guide.params
        return initial(self.model, key, *batch, beside=self.guide, elsewhere=started), guide

    def checked(
        self, key: Key, batch: Batch, check: Callable[[Params], None]
    ) -> tuple[Params, State]:
        """The same, after a first look: do model and guide match, are the data numbers?

        Args:
            key: The key of the fit.
            batch: The arguments.
            check: Refuses parameters for other reasons.
        """
        seen, fault, point = name_key(key, "check"), None, False
        try:
            with unvalidated() if self.on_nonfinite == "ignore" else nullcontext(), torch.no_grad():
                params, buffers = self.values(name_key(key, "init"), batch)
                check(params)
                model_sites, guide_sites = self.look(params, seen, batch)
                warn_without_data(model_sites)
                point = is_point(guide_sites)
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
        if point and not is_transforming():
            self._warn_if_stuck(params, seen, batch)
        return params, buffers

    def _warn_if_stuck(self, params: Params, key: Key, batch: Batch) -> None:
        """Warn of a start without a gradient, from which no step would lead away."""

        def loss(params: Params) -> Tensor:
            of_model, of_guide = self.look(params, key, batch)
            return total(log_densities(of_guide)) - total(log_densities(of_model))

        try:
            with unvalidated():
                stuck = stuck_at(loss, params, key)
        except (ValueError, RuntimeError):  # the steps themselves will say so
            return
        if stuck:
            names = ", ".join(map(repr, stuck[:4])) + (", ..." if len(stuck) > 4 else "")
            warnings.warn(
                f"The fit starts at a saddle: the gradients of {names} are exactly zero there, "
                "though the loss is lower nearby, so they would never move (a network whose "
                "weights are all zero computes the same with any of them changed). Start the guide "
                "elsewhere, by init_loc_fn=init_to_sample or init_to_uniform; in an ensemble, that "
                "also makes members differ.",
                UserWarning,
                stacklevel=4,
            )


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
