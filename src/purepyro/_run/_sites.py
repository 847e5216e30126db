"""What a run leaves behind: its sites, in the order in which they came."""

from __future__ import annotations

from traceback import walk_tb
from typing import Literal

import attrs
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from .._compat._functorch import plain
from .._compat._pyro import (
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
from .._errors import DuplicateSiteError
from .._networks._snapshot import Snapshot
from .._networks._substitution import RunMode

_PACKAGE = f"{__name__.partition('.')[0]}."

Kind = Literal["latent", "observed", "deterministic", "factor", "subsample"]


@attrs.frozen(slots=False)  # it keeps its log density
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
    mode: RunMode | None = attrs.field(default=None, repr=False)
    marked: bool = False  # for enumeration
    own_mask: bool = False  # whether the model's mask is none of a guide's site

    def log_density(self) -> Tensor:
        """The log density of the value, scaled and masked, of the shape of the site's batch."""
        # Not a cached property, which has a lock in Python 3.11.
        known: Tensor | None = self.__dict__.get("_log_density")
        if known is None:
            if self.mode is not None and not self.mode.is_on:
                with self.mode:  # the distribution may hold parameters of networks
                    known = self._scored()
            else:
                known = self._scored()
            self.__dict__["_log_density"] = known
        return known

    def _scored(self) -> Tensor:
        return scale_and_mask(log_prob(self.fn, self._legal_value()), self.scale, self.mask)

    def _legal_value(self) -> Tensor:
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

    def __init__(self, snapshot: Snapshot, mode: RunMode) -> None:
        super().__init__()
        self.sites: dict[str, Site] = {}
        self.holds_networks = False
        self._snapshot = snapshot
        self._mode = mode

    def _process_message(self, msg: Msg) -> None:
        # Before it is drawn, since that fills the caches of its transforms.
        if msg["type"] == "sample":
            self._snapshot.keep_caches(msg["fn"])

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
        substitution, fn = self._mode.substitution, message_distribution(msg)
        holds = substitution.is_held_by(fn)
        self.holds_networks |= holds
        self.sites[name] = Site(
            name=name,
            kind=_kind(msg),
            fn=fn,
            value=substitution.value_of(message_value(msg)),
            scale=msg["scale"],
            mask=msg["mask"],
            plates=msg["cond_indep_stack"],
            auxiliary=bool(infer.get("is_auxiliary")),
            mode=self._mode if holds else None,
            marked=bool(infer.get("enumerate")),
            own_mask=bool(infer.get("_own_mask")),
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


def site_under_way(error: BaseException) -> str | None:
    """The innermost site that was being served or scored on the way to an error, in words.

    Read off the frames of the error, so that no run has to keep book.
    """
    found = None
    for frame, _ in walk_tb(error.__traceback__):
        if not str(frame.f_globals.get("__name__")).startswith(("pyro.", _PACKAGE)):
            continue
        for held in frame.f_locals.values():
            if isinstance(held, Site):
                found = f"{held.name!r} ({_kind_of(held.fn)})"
            elif isinstance(held, dict) and held.get("type") == "sample" and "fn" in held:
                found = f"{str(held['name'])!r} ({_kind_of(held['fn'])})"
    return found


def _kind_of(fn: object) -> str:
    """The distribution's name, without wrappers such as ``Independent``."""
    inner: object = getattr(fn, "base_dist", None)
    return type(fn).__name__ if inner is None else _kind_of(inner)
