"""State in, state out: the buffers of ``torch.nn`` modules during one run."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

import attrs
import torch
from torch import Tensor, nn

from ._errors import MissingNameError, MutationError, ShapeError, describe, near
from .random._concrete import plain


@attrs.define
class _Kept:
    """A buffer a run computes with: where it is held, and what it was at the start."""

    owner: nn.Module | None
    name: str
    tensor: Tensor
    version: int
    start: Tensor

    def now(self) -> Tensor:
        held = self.owner._buffers[self.name] if self.owner is not None else None
        return self.tensor if held is None else held

    def changed(self) -> bool:
        if self.now() is not self.tensor or self.tensor._version != self.version:
            return True
        # torch.nn.functional.batch_norm changes its statistics and leaves no new version.
        start, now = plain(self.start), plain(self.tensor)
        return start is not None and now is not None and not torch.equal(start, now)


class Buffers:
    """The buffers of one run: copies, so that the caller's stay as they are.

    Args:
        given: The values to start from, by path; by default those in the model.
    """

    def __init__(self, given: Mapping[str, Tensor] | None = None) -> None:
        self._given = given
        self._kept: dict[str, _Kept] = {}

    def hand_out(self, prefix: str, net: nn.Module, skeleton: nn.Module) -> dict[int, Tensor]:
        """For the ``id`` of each buffer of ``net``, the tensor its skeleton computes with."""
        copies: dict[int, Tensor] = {}
        for path, own in net.named_buffers(prefix):
            inner, _, name = path.removeprefix(prefix).strip(".").rpartition(".")
            owner = skeleton.get_submodule(inner)
            before = self._kept.get(path)
            if before is None:
                start = self._start(path, own)
                copy = start.clone()
                self._kept[path] = _Kept(owner, name, copy, copy._version, start)
            else:  # a plain model called the same Module again: go on from where it was
                copy = before.now()
                before.owner = owner
            copies[id(own)] = copy
        return copies

    def watch(self, net: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Each buffer of ``net`` with a copy to use in its place."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for path, own in net.named_buffers():
            start = self._start(path, own)
            copy = start.clone()
            self._kept[path] = _Kept(None, path, copy, copy._version, start)
            pairs.append((own, copy))
        return pairs

    def now(self) -> dict[str, Tensor]:
        """The buffers as they are now."""
        return {path: kept.now() for path, kept in self._kept.items()}

    def require_unchanged(self) -> None:
        """Refuse to lose what the run did to its buffers.

        Raises:
            MutationError: if the run changed one.
        """
        changed = [path for path, kept in self._kept.items() if kept.changed()]
        if changed:
            raise MutationError(
                f"The run changed the buffers {', '.join(map(repr, changed))}, and apply has "
                "nowhere to return them, so the change would be lost. Write "
                "apply_with_state(model, params, key, state, ...), which returns them, or put the "
                "torch.nn module into evaluation mode by .eval(). Layers without such state, as "
                "GroupNorm, need neither; particles need a state each, by expand_state."
            )

    def _start(self, path: str, own: Tensor) -> Tensor:
        if self._given is None:
            return own
        if path not in self._given:
            raise MissingNameError(
                f"The state has no buffer {path!r}, which the model needs. "
                f"{near(path, self._given)} Start from init_state(model)."
            )
        given = self._given[path]
        if given.shape != own.shape or given.dtype != own.dtype:
            raise ShapeError(
                f"The buffer {path!r} is {describe(given)} in the state; the model has "
                f"{describe(own)}. Start from init_state(model)."
            )
        return given


# The buffers of the run under way. Outside of runs a Module is an ordinary Pyro model, which
# changes the buffers of its torch.nn modules in place.
ACTIVE: ContextVar[Buffers | None] = ContextVar("purepyro_buffers", default=None)
