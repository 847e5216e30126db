"""The values that a guide's latent sites start from: one run of the model finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from ..._compat._functorch import plain
from ..._compat._pyro import (
    Msg,
    drawn_key,
    is_subsample,
    message_distribution,
    message_infer,
    repeated,
    stored_params,
)
from ..._core._lazy import Lazy
from ..._declare._reads import RUNNING
from ..._errors import DtypeError, ShapeError, SupportError, UnknownNameError, describe, near
from ..._run._execute import Setting, execute
from ..._run._sites import Site
from ...random import Key, name_key
from ._initialization import Initializer, InitSite, init_to_feasible, values_given
from ._latents import Latent


class Start:
    """Starting values on given arguments. Nothing is computed before the first is asked for."""

    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Initializer,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        rows: Mapping[str, Tensor],
    ) -> None:
        self._rows = rows
        self._model = model
        self._init_loc_fn = init_loc_fn
        self._args = args
        self._kwargs = kwargs

    @Lazy
    def key(self) -> Key:
        """A key of the ``init`` under way, the same for all guides in it."""
        return Key(drawn_key("_auto_start"))

    def value(self, latent: Latent) -> Tensor:
        """The constrained value to start from."""
        if self._init_loc_fn is init_to_feasible:
            value: Tensor = biject_to(latent.support)(latent.zeros())
            return value
        return _full(self._values[latent.name], latent, latent.event_dim)

    def loc(self, latent: Latent) -> Tensor:
        """The unconstrained value to start from."""
        if self._init_loc_fn is init_to_feasible:
            return latent.zeros()
        loc: Tensor = biject_to(latent.support).inv(self._values[latent.name])
        return _full(loc, latent, latent.unconstrained_event_dim)

    @Lazy
    def _values(self) -> dict[str, Tensor]:
        started = _Started(self._init_loc_fn, self.key)
        with torch.no_grad():
            # Of the sites that a block hides from this guide, those with a value take it too.
            given = values_given(self._init_loc_fn)
            setting = Setting(params=self._params, values={**given, **self._rows}, collect=True)
            model = started(self._model)
            outcome = execute(model, self.key, self._args, self._kwargs, setting)
        for name in given:
            if name not in started.values and name not in outcome.values_read:
                raise UnknownNameError(_no_site(name, outcome.sites))
        return started.values

    @property
    def _params(self) -> Mapping[str, Tensor]:
        """The model's parameters, as the run under way has them or would start them."""
        running = RUNNING.get()
        if running is None:
            return stored_params()
        if not running.collects:
            return running.params
        setting = Setting(params=running.params, values=self._rows, collect=True)
        return execute(self._model, Key(running.key), self._args, self._kwargs, setting).params


class _Started(Messenger):
    """Gives each latent site its starting value, so that later priors see it."""

    def __init__(self, init_loc_fn: Initializer, key: Key) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self._init_loc_fn = init_loc_fn
        self._key = key

    def _pyro_sample(self, msg: Msg) -> None:
        if msg["value"] is not None or is_subsample(msg["fn"]):
            return
        if message_infer(msg).get("is_auxiliary"):
            return
        site = InitSite(str(msg["name"]), message_distribution(msg))
        value = self._init_loc_fn(site, name_key(self._key, site.name))
        _check(site, value)
        msg["value"] = self.values[site.name] = value


def _no_site(name: str, sites: Mapping[str, Site]) -> str:
    latent = [other for other, site in sites.items() if site.kind == "latent"]
    if name in sites:
        what = f"is {sites[name].kind}, not latent, in the model on these arguments"
    else:
        what = "names no site of the model on these arguments"
    parts = [other for other in latent if other.startswith(f"{name}_")]
    hint = f"It is made from {' and '.join(map(repr, parts))}." if parts else near(name, latent)
    return (
        f"init_to_value has a value for {name!r}, which {what}, so the guide would start "
        f"elsewhere. {hint} Give values for latent sites; under a reparametrisation, for those "
        "that it makes."
    )


def _check(site: InitSite, value: object) -> None:
    """Refuse what is no value of the site."""
    if not isinstance(value, Tensor):
        raise DtypeError(
            f"The value to start the latent site {site.name!r} from is {describe(value)}, which is "
            "no Tensor. Let init_loc_fn return one, for example torch.tensor(1.0)."
        )
    if value.shape != site.shape:
        raise ShapeError(
            f"The value to start the latent site {site.name!r} from is {describe(value)}, but the "
            f"site has the shape {list(site.shape)}. Broadcasting it would change the guide. Let "
            "init_loc_fn return a tensor of site.shape."
        )
    seen = plain(value)
    if seen is None:
        return
    if not bool(site.support.check(seen).all()):
        raise SupportError(
            f"The value to start the latent site {site.name!r} from ({describe(value)}) lies "
            f"outside the support {site.support} of its {type(site.fn).__name__}, where the "
            "density is zero. Let init_loc_fn return a value inside the support."
        )
    # A bound of the support is at infinity in unconstrained space.
    if not all(bool(torch.isfinite(v).all()) for v in (seen, biject_to(site.support).inv(seen))):
        raise SupportError(
            f"The value to start the latent site {site.name!r} from ({describe(value)}) is not "
            "finite, there or in unconstrained space, so every gradient would be lost from the "
            "first step. Let init_loc_fn return a finite value inside the support, or use "
            "init_to_feasible."
        )


def _full(value: Tensor, latent: Latent, event_dim: int) -> Tensor:
    """``value`` with its subsampled plates at full size."""
    for frame in latent.plates:
        if frame.dim is not None and frame.full_size not in (None, frame.size):
            value = repeated(value, frame.full_size, frame.dim - event_dim)
    return value
