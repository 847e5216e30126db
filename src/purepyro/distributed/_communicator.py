"""What the ranks of a job tell each other, and what they learn of one that failed or is gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Generic, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from .._compat import _c10d
from .._errors import DeclarationError, RankError

T = TypeVar("T")

LOGGER = logging.getLogger("purepyro.distributed")

# How long ranks whose collective broke off wait for the others to say that they are alive.
_GRACE = 1.0


class _Message(NamedTuple, Generic[T]):
    """What a rank tells the others where all ranks meet.

    Attributes:
        content: The message itself.
        failure: Why this rank cannot go on; ``None`` if it can.
        steps: Whether this rank is in a step, and expects the sum of gradients next.
    """

    content: T
    failure: str | None = None
    steps: bool = False


class Communicator:
    """Messages and sums among the ranks of a process group.

    All ranks make the same calls in the same order. Each exchange and each step begins with a sum
    of two values, from which every rank learns whether all are at the same point. If not, or if one
    has failed, all of them raise an error that says so. A rank that is gone breaks the collective
    off, and is named by the others.

    Attributes:
        rank: This process's rank in the group.
        size: How many ranks there are.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def names(self, ranks: Iterable[int]) -> str:
        """``rank 3``, or ``ranks 3, 5``: by their numbers among all processes."""
        everyone = _c10d.global_ranks(self._group)
        names = [str(everyone[rank]) for rank in ranks]
        return f"{'rank' if len(names) == 1 else 'ranks'} {', '.join(names)}"

    def exchange(self, content: T) -> list[T]:
        """The message of every rank, by rank.

        Raises:
            RankError: on all ranks, if one has failed, is gone, or is in a step.
        """
        self._meet(steps=False, weight=0.0)
        return self._messages(_Message(content))

    def begin_step(self, weight: float) -> float:
        """Meet the others before the gradients of a step are summed.

        Returns:
            The sum of the weights of all ranks.

        Raises:
            RankError: on all ranks, if one has failed, is gone, or does not take this step.
        """
        stepping, total = self._meet(steps=True, weight=weight)
        if stepping < self.size:
            self._messages(_Message(None, steps=True))
        return total

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, the same to the bit on each."""
        total = tensor.detach().clone()
        with self._broken_off_explained():
            _c10d.sum_in_place(total, self._group)
        return total

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape, by rank."""
        with self._broken_off_explained():
            return _c10d.gather_tensors(tensor.contiguous(), self._group)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """A block in which an error on one rank is raised on all, once they meet."""
        try:
            yield
        except RankError:  # the others have it too
            raise
        except Exception as error:
            told = f"Told to {self.names(range(self.size))}."
            if told not in getattr(error, "__notes__", ()):  # by a block within this one
                self._tell(f"{self.names([self.rank])} failed: {type(error).__name__}: {error}")
                error.add_note(told)
            raise

    def fail(self, reason: str) -> NoReturn:
        """End the run on all ranks, with this error."""
        self._tell(reason)
        raise RankError(_capitalized(reason))

    def _tell(self, failure: str) -> None:
        """Tell the others of a failure, when they come to the next exchange or step."""
        if self.size > 1:
            LOGGER.warning("%s Telling the other ranks.", _capitalized(failure))
            with suppress(RankError):  # the failure at hand matters more than that of another
                self._meet(steps=False, weight=0.0)
                self._messages(_Message(None, failure=failure))

    def _meet(self, *, steps: bool, weight: float) -> tuple[int, float]:
        """How many ranks are in a step, and the sum of their weights."""
        device = _c10d.message_device(self._group)
        sums = self.sum(torch.tensor([float(steps), weight], dtype=torch.float64, device=device))
        stepping, total = sums.tolist()
        return int(stepping), total

    def _messages(self, own: _Message[T]) -> list[T]:
        """The messages of all ranks; an error, if they cannot go on together."""
        with self._broken_off_explained():
            messages = _c10d.gather_objects(own, self._group)
        for message in messages:
            if message.failure is not None:
                raise RankError(
                    f"{_capitalized(message.failure)}\nSo {self.names([self.rank])} cannot go on. "
                    "Start the job again, from the last checkpoint; it may have another number of "
                    "ranks."
                )
        stepping = [rank for rank, message in enumerate(messages) if message.steps]
        if stepping:
            others = [rank for rank in range(self.size) if rank not in stepping]
            raise RankError(
                f"{_capitalized(self.names(stepping))} {_is(stepping)} in a step that "
                f"{self.names(others)} will not take. All ranks must take the same steps: give "
                "each as many batches as the others."
            )
        return [message.content for message in messages]

    @contextmanager
    def _broken_off_explained(self) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            waited = timedelta(seconds=round(time.monotonic() - start))
            raise RankError(self._why_broken_off(str(error), waited)) from error

    def _why_broken_off(self, error: str, waited: timedelta) -> str:
        """Which ranks are gone or late; the first rank that knows says it for all."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        gone = [rank for rank in others if not _c10d.is_connected(rank, self._group)]
        with suppress(RuntimeError):  # a group that is broken off may refuse
            # Those that wait for this rank break off too, though not connected to the one gone.
            _c10d.abort(self._group)
        store = _c10d.store_of(self._group)
        with suppress(dist.DistError):  # the process that holds the store may be the one gone
            store.set(f"purepyro/alive/{self.rank}", "")
            time.sleep(_GRACE)
            gone = [rank for rank in gone if not store.check([f"purepyro/alive/{rank}"])]
            reason = self._gone(gone, error, waited)
            return store.compare_set("purepyro/failure", "", reason).decode()
        return self._gone(gone, error, waited)

    def _gone(self, ranks: list[int], error: str, waited: timedelta) -> str:
        if not ranks:
            return (
                f"A collective failed on {self.names([self.rank])}, though all ranks are alive: "
                f"{error} They have no common state any more. Look at the network, and go on from "
                "the last checkpoint."
            )
        if "imed out" in error:
            return (
                f"{_capitalized(self.names([self.rank]))} has waited {waited} for "
                f"{self.names(ranks)}, which is longer than the timeout of the process group. "
                "Where ranks may be so far apart: purepyro.distributed.start(timeout=...)."
            )
        return (
            f"{_capitalized(self.names(ranks))} of {self.size} gave no sign of life: killed, "
            f"ended, or cut off. So {self.names([self.rank])} waits in vain. Start the job again, "
            "from the last checkpoint; it may have another number of ranks."
        )


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def _is(ranks: list[int]) -> str:
    return "is" if len(ranks) == 1 else "are"


@contextmanager
def connected(mesh: DeviceMesh | None) -> Iterator[Communicator]:
    """A block in which ranks talk to each other, and an error on one is raised on all."""
    communicator = communicator_of(mesh)
    with communicator.fail_together():
        yield communicator


def communicator_of(mesh: DeviceMesh | None) -> Communicator:
    """What connects the ranks of a mesh, or all ranks of the job.

    Raises:
        RankError: if there is no process group.
        DeclarationError: if the mesh has more than one dimension.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RankError(
            "There is no process group, so this process does not know the others. Run the script "
            "by torchrun --nproc-per-node=2 script.py, and put its work in a block "
            'with purepyro.distributed.start(); or call torch.distributed.init_process_group("gloo"'
            ') yourself, "nccl" on GPUs.'
        )
    if mesh is not None and mesh.ndim != 1:
        raise DeclarationError(
            f"The mesh has {mesh.ndim} dimensions, {mesh.mesh_dim_names}, and members or rows are "
            "spread over one. Give the part that is meant, such as mesh['members']."
        )
    return Communicator(_c10d.group_of(mesh))
