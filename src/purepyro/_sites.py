"""What a run leaves behind: its sites, in the order in which they came."""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from ._boundary import (
    Msg,
    Plates,
    is_full_plate,
    is_subsample,
    log_prob,
    message_distribution,
    message_infer,
    message_value,
    scale_and_mask,
)
from ._errors import DuplicateSiteError
from .random._concrete import plain

Kind = Literal["latent", "observed", "deterministic", "factor", "subsample"]


@attrs.frozen
class Site:
    """One ``pyro.sample`` statement of a run, as it was after all handlers had their say."""

    name: str
    kind: Kind
    fn: TorchDistributionMixin
    value: Tensor
    scale: Tensor | float
    mask: Tensor | bool | None
    plates: Plates
    auxiliary: bool

    def log_density(self) -> Tensor:
        """The log density of the value, scaled and masked, of the shape of the site's batch."""
        return scale_and_mask(log_prob(self.fn, self._scored()), self.scale, self.mask)

    def _scored(self) -> Tensor:
        """The value; where it is NaN under a mask, a legal one, which has a gradient."""
        value, mask = self.value, self.mask
        if self.kind != "observed" or not isinstance(mask, Tensor) or not value.is_floating_point():
            return value
        by_event = mask.reshape(mask.shape + (1,) * self.fn.event_dim)
        hidden = value.isnan() & ~by_event
        seen = plain(hidden)
        if seen is not None and not bool(seen.any()):
            return value
        return torch.where(hidden, feasible(self.fn).to(value), value)


def feasible(fn: TorchDistributionMixin) -> Tensor:
    """The point of the support that is zero in unconstrained space."""
    if fn.support.is_discrete:
        return torch.zeros(fn.shape())
    transform = biject_to(fn.support)
    value: Tensor = transform(torch.zeros(transform.inverse_shape(fn.shape())))
    return value


class Recorder(Messenger):
    """The handler at the bottom of a run's stack: it keeps the sites that reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, Site] = {}

    def _postprocess_message(self, msg: Msg) -> None:
        infer = message_infer(msg)
        if msg["type"] != "sample" or is_full_plate(msg["fn"]) or infer.get("_do_not_trace"):
            return
        name = str(msg["name"])
        if name in self.sites:
            raise DuplicateSiteError(
                f"Two sites of this run are named {name!r}. Draws and records go by name, so one "
                "would shadow the other. Give one another name; if a Module is meant to be two, "
                "hold two instances of it."
            )
        self.sites[name] = Site(
            name=name,
            kind=_kind(msg),
            fn=message_distribution(msg),
            value=message_value(msg),
            scale=msg["scale"],
            mask=msg["mask"],
            plates=msg["cond_indep_stack"],
            auxiliary=bool(infer.get("is_auxiliary")),
        )


def is_exempt(msg: Msg) -> bool:
    """Whether a site carries a computed value, as ``deterministic`` and ``factor`` make them."""
    return _kind(msg) in ("deterministic", "factor")


def _kind(msg: Msg) -> Kind:
    infer = message_infer(msg)
    if is_subsample(msg["fn"]):
        return "subsample"
    if infer.get("_deterministic"):
        return "deterministic"
    if not msg["is_observed"]:
        return "latent"
    return "factor" if infer.get("is_auxiliary") else "observed"
