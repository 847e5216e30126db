"""State in, state out: the buffers of ``torch.nn`` modules during one run."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from .._compat._functorch import plain
from .._compat._pyro import as_they_are
from .._core._types import State
from .._errors import MissingNameError, MutationError, ShapeError, describe, near


@attrs.define
class _Kept:
    """A buffer a run computes with: where it is held, and what it was at the start."""

    owner: nn.Module
    name: str
    original: Tensor
    tensor: Tensor
    version: int
    start: Tensor
    borrowed: bool
    after: Tensor | None = None

    def now(self) -> Tensor:
        if self.after is not None:
            return self.after
        held = self.owner._buffers.get(self.name)
        return self.tensor if held is None or held is self.original else held

    def finish(self) -> None:
        self.after = self.now()
        if self.borrowed and self.owner._buffers.get(self.name) is not self.original:
            self.owner._buffers[self.name] = self.original

    def changed(self) -> bool:
        if self.now() is not self.tensor or self.tensor._version != self.version:
            return True
        # torch.nn.functional.batch_norm changes its statistics and leaves no new version.
        start, now = plain(self.start), plain(self.tensor)
        if start is None or now is None:
            return False
        with as_they_are():
            return not torch.equal(torch.nan_to_num(start), torch.nan_to_num(now))


class Buffers:
    """The buffers of one run: copies, so that the caller's stay as they are.

    Args:
        given: The values to start from, by path; by default those in the model.
    """

    def __init__(self, given: Mapping[str, Tensor] | None = None) -> None:
        self._given = given
        self._kept: dict[str, _Kept] = {}
        self._watched: set[int] = set()
        self._networks: set[int] = set()

    @property
    def originals(self) -> dict[str, Tensor]:
        """The tensors that the networks themselves hold, by path."""
        return {path: kept.original for path, kept in self._kept.items()}

    @property
    def before(self) -> State:
        """The buffers as the run found them."""
        return {path: kept.start for path, kept in self._kept.items()}

    def hand_out(self, prefix: str, net: nn.Module, copy: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Each buffer of ``net`` with the tensor that its copy computes with."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for path, own in net.named_buffers(prefix):
            inner, _, name = path.removeprefix(prefix).strip(".").rpartition(".")
            owner = copy.get_submodule(inner)
            pairs.append((own, self._keep(path, own, owner, name, borrowed=False)))
        return pairs

    def is_new(self, net: nn.Module) -> bool:
        """Whether this is the first that the run hears of a network."""
        if id(net) in self._networks:
            return False
        self._networks.add(id(net))
        return True

    def watch(self, net: nn.Module, prefix: str = "") -> list[tuple[Tensor, Tensor]]:
        """Each buffer of ``net``, which computes on itself, with a copy to use in its place."""
        pairs: list[tuple[Tensor, Tensor]] = []
        for path, own in net.named_buffers():
            if id(own) not in self._watched:
                self._watched.add(id(own))
                inner, _, name = path.rpartition(".")
                owner = net.get_submodule(inner)
                pairs.append((own, self._keep(prefix + path, own, owner, name, borrowed=True)))
        return pairs

    def _keep(
        self, path: str, own: Tensor, owner: nn.Module, name: str, *, borrowed: bool
    ) -> Tensor:
        before = self._kept.get(path)
        if before is not None:  # a plain model called the same Module again: go on from there
            before.tensor, before.owner = before.now(), owner
            return before.tensor
        start = self._start(path, own)
        with as_they_are():
            copy = start.clone()
        self._kept[path] = _Kept(owner, name, own, copy, copy._version, start, borrowed)
        return copy

    def now(self) -> State:
        """The buffers as they are now, or as the run left them."""
        return {path: kept.now() for path, kept in self._kept.items()}

    def finish(self) -> None:
        """The run is over: networks that computed on themselves hold their own buffers again."""
        for kept in self._kept.values():
            kept.finish()

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
