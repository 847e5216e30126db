"""The values that a guide's latent sites start from: one run of the model finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from ..._boundary import (
    Msg,
    drawn_key,
    is_subsample,
    message_distribution,
    message_infer,
    repeated,
)
from ..._errors import DtypeError, ShapeError, SupportError, describe
from ..._execute import Setting, execute
from ..._lazy import Lazy
from ...random import Key, name_key
from ...random._concrete import plain
from ._initialization import Initializer, InitSite, init_to_feasible
from ._prototype import Latent


class Start:
    """Starting values on given arguments. Nothing is computed before the first is asked for."""

    def __init__(
        self,
        model: Callable[..., object],
        init_loc_fn: Initializer,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
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
            execute(started(self._model), self.key, self._args, self._kwargs, Setting(collect=True))
        return started.values


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
