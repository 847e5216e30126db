"""Members of an ensemble, spread over processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Generic, ParamSpec, overload

import attrs
import torch
from torch.distributed.device_mesh import DeviceMesh

from .._core._trees import mapped
from .._errors import SupportError
from ..ensemble import Ensemble, EnsembleRunResult, EnsembleState
from ..ensemble._in_dims import Arguments, arguments
from ..ensemble._member_settings import checked_keys
from ..ensemble._members import size_of
from ..infer import load, save
from ..infer.svi._svi import check_count
from ..random import Key
from ..random._reuse import consume
from ._communicator import Link, link_of
from ._consistency import of_arguments, of_leaves, require_alike, shown_key
from ._gather import gathered, own_arguments, part_of, share_of
from ._gathered_report import report

P = ParamSpec("P")


@attrs.frozen
class Sharded(Generic[P]):
    """An ensemble whose members are spread over the ranks of a job.

    Every rank calls the same methods with the same arguments, as for an :class:`Ensemble` in one
    process, and holds a part of the members: next to each other, as many as every other rank, or
    one more. Nothing travels while they train. Member ``i`` is the run of key ``i``, for any
    number of ranks: the same draws bit for bit, trained parameters up to rounding.

    Before a run the ranks compare their keys, data and starting values, by checksums. One that
    differs, fails or is gone ends the run on all of them, with an error that names it.

    Attributes:
        ensemble: How to train the members.
        mesh: The processes among which to spread them, in one dimension; ``None``: all.

    Source: ``torch.distributed``; the state's first dimension is what ``Shard(0)`` is to a DTensor.

    Example:
        >>> import torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import Ensemble, random
        >>> from purepyro.distributed import Sharded, start
        >>> from purepyro.infer import SVI, AutoNormal
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> y = torch.tensor([1.0, 2.0, 3.0])
        >>> with start():  # by torchrun on many processes, by python on one
        ...     sharded = Sharded(Ensemble(SVI(model, AutoNormal(model), torchopt.adam(0.1))))
        ...     mine = sharded.run(random.split(random.key(0), 5), 20, y)
        ...     state, losses = sharded.gather(mine)
        >>> losses.shape
        torch.Size([20, 5])
    """

    ensemble: Ensemble[P]
    mesh: DeviceMesh | None = None

    def init(self, keys: Key, /, *args: P.args, **kwargs: P.kwargs) -> EnsembleState:
        """This rank's members before the first step; see :meth:`Ensemble.init`.

        Args:
            keys: The keys of all members, the same on every rank.
            *args: Arguments of model and guide, the same on every rank; of those that ``in_dims``
                says are the members' own, each rank takes its part.
            **kwargs: The same, by name.

        Raises:
            RankError: if the ranks differ in keys, arguments or starting values, or one is gone.
        """
        link = link_of(self.mesh)
        with link.together():
            return self._init(link, keys, args, kwargs)

    def run(
        self, keys: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> EnsembleRunResult:
        """This rank's part of :meth:`Ensemble.run`; :meth:`gather` makes it whole.

        Raises:
            SupportError: on all ranks, if the members of all are in quarantine.
            RankError: if the ranks differ in what they call with, or one is gone.
        """
        link = link_of(self.mesh)
        with link.together():
            num_steps = check_count(num_steps, "num_steps")
            state = self._init(link, keys, args, kwargs)
            return self._run(link, state, num_steps, args, kwargs)

    def run_from(
        self, state: EnsembleState, num_steps: int, /, *args: P.args, **kwargs: P.kwargs
    ) -> EnsembleRunResult:
        """:meth:`run`, going on from this rank's members: of another run, or of a file."""
        link = link_of(self.mesh)
        with link.together():
            num_steps = check_count(num_steps, "num_steps")
            require_alike(link, {"call": "Sharded.run_from", **of_arguments(args, kwargs)})
            return self._run(link, state, num_steps, args, kwargs)

    @overload
    def gather(self, found: EnsembleState, /) -> EnsembleState: ...
    @overload
    def gather(self, found: EnsembleRunResult, /) -> EnsembleRunResult: ...
    def gather(
        self, found: EnsembleState | EnsembleRunResult, /
    ) -> EnsembleState | EnsembleRunResult:
        """All members, on every rank: what :class:`Ensemble` would have returned.

        Args:
            found: This rank's state, or its result with the losses.

        Raises:
            RankError: if a rank is gone, or is elsewhere.
        """
        link = link_of(self.mesh)
        with link.together():
            if isinstance(found, EnsembleState):
                return gathered(link, found, self._counts(link, "gather", found))
            counts = self._counts(link, "gather", found.state)
            state = gathered(link, found.state, counts)
            kinds = link.exchange(str(found.losses.dtype).removeprefix("torch."))
            # A rank without members has no losses to tell their dtype from.
            dtype: torch.dtype = getattr(torch, kinds[counts.index(max(counts))])
            losses = gathered(link, found.losses.to(dtype).mT.contiguous(), counts)
            return EnsembleRunResult(state, losses.mT.contiguous())

    def save(self, path: str | os.PathLike[str], state: EnsembleState, /) -> None:
        """Write all members to one file, by the first rank; returns when it is there.

        The file is that of :func:`purepyro.infer.save` for the whole ensemble: any number of ranks
        can go on from it, also a single process without this class.

        Args:
            path: The file; an earlier one is replaced.
            state: This rank's members.
        """
        link = link_of(self.mesh)
        with link.together():
            counts = self._counts(link, "save", state)
            first = link.rank == 0
            whole = gathered(
                link, state, counts, lambda leaf: leaf.cpu() if first else leaf.new_empty(0)
            )
            if first:
                save(path, whole)
            link.exchange("saved")

    def load(self, path: str | os.PathLike[str], /, *, like: EnsembleState) -> EnsembleState:
        """This rank's part of a file of :meth:`save`, or of :func:`purepyro.infer.save`.

        Args:
            path: The file, which every rank must be able to read.
            like: This rank's part of a state of the same kind, such as ``sharded.init(keys, ...)``.
        """
        link = link_of(self.mesh)
        with link.together():
            total = sum(self._counts(link, "load", like))
            whole = load(
                path,
                like=mapped(
                    lambda leaf: leaf.new_empty((total, *leaf.shape[1:]), device="cpu"), like
                ),
            )
            mine = part_of(whole, share_of(link, total))
            return mapped(lambda leaf, other: leaf.to(other.device), mine, like)

    def _counts(self, link: Link, call: str, state: EnsembleState) -> list[int]:
        require_alike(link, {"call": f"Sharded.{call}"})
        return link.exchange(size_of(state))

    def _init(
        self, link: Link, keys: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> EnsembleState:
        keys = checked_keys(keys, self.ensemble.members)
        consume(keys, "Sharded.init")
        arguments(self.ensemble.in_dims, args, kwargs, len(keys))
        first = self._begun(keys, slice(0, 1), args, kwargs)
        require_alike(
            link,
            {
                "call": "Sharded.init",
                "keys": shown_key(keys),
                **of_arguments(args, kwargs),
                **of_leaves("argument members", self.ensemble.members),
                **of_leaves("start", first.svi.params),
            },
        )
        share = share_of(link, len(keys))
        self._require_one_good(link, keys, share, args, kwargs)
        if share.start == share.stop:
            return part_of(first, slice(0, 0))
        return self._begun(keys, share, args, kwargs)

    def _begun(
        self, keys: Key, share: slice, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> EnsembleState:
        return self._part(share)._begun(Key(keys[share]), self._call(share, args, kwargs))

    def _require_one_good(
        self,
        link: Link,
        keys: Key,
        share: slice,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Refuse data with which no member of any rank could start, as one process would."""
        trouble = None
        if share.start < share.stop:
            try:
                own = self._call(share, args, kwargs)
                self._part(share)._require_one_good(Key(keys[share]), own)
            except SupportError as error:
                trouble = str(error)
        notes = link.exchange([share.start < share.stop, trouble])
        troubles = [text for has_members, text in notes if has_members]
        if all(troubles):
            raise SupportError(troubles[0])

    def _part(self, share: slice) -> Ensemble[P]:
        """The ensemble of some members."""
        return attrs.evolve(self.ensemble, members=part_of(self.ensemble.members, share))

    def _call(self, share: slice, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """The arguments of some members."""
        in_dims = self.ensemble.in_dims
        own = own_arguments(in_dims, args, kwargs, share)
        return arguments(in_dims, own.args, own.kwargs, share.stop - share.start)

    def _run(
        self,
        link: Link,
        state: EnsembleState,
        num_steps: int,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> EnsembleRunResult:
        require_alike(link, {"call": "Sharded.run", "num_steps": str(num_steps)})
        counts = link.exchange(size_of(state))
        arguments(self.ensemble.in_dims, args, kwargs, sum(counts))
        start = sum(counts[: link.rank])
        call = self._call(slice(start, start + size_of(state)), args, kwargs)
        if size_of(state):
            result = self.ensemble._trained(state, num_steps, call)
        else:
            result = EnsembleRunResult(state, torch.zeros(num_steps, 0))
        after = result.state
        if num_steps:
            report(link, state, after, lambda i: self.ensemble._cause(after, i, call))
        return result
