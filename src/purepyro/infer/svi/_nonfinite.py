"""What to do about a loss that is not finite, and which site is to blame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import attrs
import torch
from torch import Tensor

from ..._compat._functorch import plain
from ..._compat._isolation import unvalidated
from ..._core._trees import tensors_in
from ..._core._types import Params
from ..._errors import DuplicateSiteError, ShapeError, SupportError, describe
from ..._run._sites import Site
from ...random import Key
from ..losses._elbo import feeds_model
from ..losses._model_and_guide import BufferFlow, Pair

OnNonfinite: TypeAlias = Literal["raise", "skip", "ignore"]
"""What happens at a loss that is not finite."""

S = TypeVar("S")

# On an accelerator reading a loss waits for it, so several are read at once.
_LOOK_EVERY = 10


class Batch(NamedTuple):
    """The arguments of one step."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Taken(NamedTuple, Generic[S]):
    """A step that was taken, and can be again: the state before it, and its batch."""

    before: S
    batch: Batch


class Explain(Protocol[S]):
    """Says why a step went wrong, given that step and the one before; ``None``: no idea."""

    def __call__(self, now: Taken[S], previous: Taken[S] | None, /) -> str | None:
        """The sentence."""
        ...


class Watch(Generic[S]):
    """Takes steps and reads their losses; one that is not finite is explained and raised.

    Losses are read at once on the CPU, and a few at a time elsewhere. Since a step is pure, those
    since the last look can be taken again to find the one where it began; so only the state before
    them is kept.
    """

    def __init__(
        self,
        step: Callable[..., tuple[S, Tensor]],
        explain: Explain[S],
        every: int | None = None,
    ) -> None:
        self._step = step
        self._explain = explain
        self._every = every
        self._anchor: S | None = None
        self._batches: list[Batch] = []  # from the anchor on
        self._unread: list[Tensor] = []

    def step(self, state: S, batch: Batch) -> tuple[S, Tensor]:
        """The next step of the run."""
        if self._anchor is None:
            self._anchor = state
        self._batches.append(batch)
        try:
            after, loss = self._step(state, *batch.args, **batch.kwargs)
        except (ShapeError, DuplicateSiteError):
            raise
        except ValueError as error:  # torch and Pyro refuse numbers by these
            self.look(state)
            reason = self._reason(len(self._batches) - 1)
            if reason is None:
                raise
            raise SupportError(reason) from error
        self._unread.append(loss)
        every = self._every or (1 if loss.device.type == "cpu" else _LOOK_EVERY)
        if len(self._unread) >= every:
            self.look(state)
        return after, loss

    def look(self, before_last: S) -> None:
        """Read the losses that were not read; ``before_last`` is the state before the last step."""
        if not self._unread:
            return
        bad = _first_bad(self._unread)
        if bad is not None:
            raise SupportError(
                self._reason(len(self._batches) - len(self._unread) + bad)
                or f"The loss of a step is {self._unread[bad].item()}, though all sites are finite "
                "when it is taken again. Look for a loss or a model that is not a function of its "
                "arguments."
            )
        self._unread.clear()
        # The last step is kept: its gradient may be why the next loss goes bad.
        self._anchor = before_last
        del self._batches[:-1]

    def end(self, before_last: S, last: S) -> None:
        """Read what is left; a last gradient that went bad shows in the final state only."""
        self.look(before_last)
        if self._batches and not bool(all_finite(last)):
            reason = self._explain(
                Taken(last, self._batches[-1]), Taken(before_last, self._batches[-1])
            )
            if reason is not None:
                raise SupportError(reason)

    def _reason(self, index: int) -> str | None:
        """Take the steps since the anchor again, up to the one that went wrong."""
        assert self._anchor is not None
        now, previous = Taken(self._anchor, self._batches[0]), None
        for batch in self._batches[1 : index + 1]:
            previous = now
            state, _ = self._step(now.before, *now.batch.args, **now.batch.kwargs)
            now = Taken(state, batch)
        return self._explain(now, previous)


@attrs.frozen
class Suspects:
    """Model and guide, to be run again at a step that went wrong."""

    model: Callable[..., object]
    guide: Callable[..., object]

    def fault(self, params: Params, keys: Iterable[Key], batch: Batch) -> str | None:
        """The first site whose value or density is not finite, as a sentence."""
        with unvalidated(), torch.no_grad():
            for key in keys:
                for owner, site in self._sites(params, key, batch):
                    if isinstance(site, str):
                        return site
                    found = _fault_of(owner, site)
                    if found:
                        return found
        return None

    def gradient_fault(self, params: Params, keys: Iterable[Key], batch: Batch) -> str | None:
        """The first site whose log density has a gradient that is not finite, as a sentence."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        with unvalidated(), torch.enable_grad():
            for key in keys:
                for owner, site in self._sites(leaves, key, batch):
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
        self, params: Params, key: Key, batch: Batch
    ) -> Iterable[tuple[str, Site]] | Iterable[tuple[str, Site | str]]:
        """The sites of the guide, then of the model; or the sentence that a run refused with."""
        pair, flow = Pair(self.model, self.guide, params, *batch), BufferFlow(strict=False)
        guided = pair.together(key, lambda both: _scored(both.run_guide(key).sites), flow)
        for site in guided.values():
            yield "guide", site
        values = {name: site.value for name, site in guided.items() if feeds_model(site)}
        try:
            modelled = pair.together(
                key, lambda both: _scored(both.run_model(key, values).sites), flow
            )
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


def nonfinite_names(params: Params) -> list[str]:
    """The names of the parameters that are not finite."""
    return [name for name, value in params.items() if not bool(value.isfinite().all())]


def all_finite(tree: object) -> Tensor:
    """Whether all tensors of a pytree are finite, as a tensor; legal under ``vmap``."""
    flags = [leaf.isfinite().all() for leaf in tensors_in(tree)]
    return torch.stack(flags).all()


def _first_bad(losses: list[Tensor]) -> int | None:
    """The place of the first loss that is not finite."""
    if len(losses) == 1:
        return None if math.isfinite(losses[0].item()) else 0
    finite = torch.stack(losses).isfinite()
    return None if bool(finite.all()) else int(finite.int().argmin())


def _fault_of(owner: str, site: Site) -> str | None:
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


def at_init(fault: str) -> str:
    """The message for a fault that is there before the first step."""
    return (
        f"SVI.init: {fault}, so the loss would not be finite from the first step. Mend the data or "
        "the model; with SVI(..., on_nonfinite='ignore') init does not look."
    )


def has_nan(site: Site) -> bool:
    """Whether a density is seen to be no number."""
    if site.kind == "subsample":
        return False
    seen = plain(site.log_density())
    return seen is not None and bool(seen.isnan().any())
