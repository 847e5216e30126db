"""What joins the processes of a run: short notes through the store, tensors by collectives."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from .._compat._c10d import (
    group_of,
    name_of,
    new_connection,
    ranks_of,
    start_gather,
    start_sum,
    timeout_of,
    wait,
)
from .._errors import DeclarationError, RankError
from . import _heart
from ._heart import Heart, Pulse

T = TypeVar("T")

# A collective that is cut off is explained after so many seconds without a beat.
_CUT_OFF = 4.0
# How often to look after the others while waiting.
_LOOK = timedelta(seconds=1)


class Link:
    """One process's link to the others of its group.

    All processes make the same exchanges in the same order. One that waits looks after the others,
    so it ends with an error where one is gone, has failed, or is elsewhere.

    Attributes:
        rank: This process's number in the group.
        size: How many there are.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self._names = ranks_of(group)
        prefix = f"purepyro/{name_of(group)}"
        self._store = new_connection(prefix)
        self._heart = Heart(prefix, self.rank) if self.size > 1 else None
        self._timeout = timeout_of(group)
        self._count = 0

    def close(self) -> None:
        """Give no more signs of life."""
        if self._heart is not None:
            self._heart.stop()

    def named(self, ranks: Iterable[int]) -> str:
        """``rank 3``, or ``ranks 3, 5``: by their numbers among all processes."""
        names = [str(self._names[rank]) for rank in ranks]
        return f"{'rank' if len(names) == 1 else 'ranks'} {', '.join(names)}"

    def exchange(self, note: T) -> list[T]:
        """Every process's note, by rank; waits for the last. A note is what JSON can hold."""
        number = self._count
        names = [f"{number}/{rank}" for rank in range(self.size)]
        with self._store_answers():
            self._store.set(names[self.rank], json.dumps(note))
            self._await(names)
            self.read_fault()  # of one that was here, and has gone on waiting in vain
            notes: list[T] = [json.loads(text) for text in self._store.multi_get(names)]
            if number:
                # All have written this one, so all have read the one before.
                self._store.delete_key(f"{number - 1}/{self.rank}")
        self._count += 1
        return notes

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same to the bit on each."""
        total = tensor.detach().clone()
        self._finish(start_sum(total, self.group), total)
        return total

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, by rank; of one shape."""
        places = [torch.empty_like(tensor) for _ in range(self.size)]
        self._finish(start_gather(places, tensor.contiguous(), self.group), tensor)
        return places

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all go through; if one fails in it, the others end with its error."""
        try:
            yield
        except RankError:
            raise
        except Exception as error:
            if self.size > 1:
                self._post(f"{self.named([self.rank])} failed: {type(error).__name__}: {error}")
            raise

    def _finish(self, work: dist.Work, tensor: Tensor) -> None:
        if tensor.device.type != "cpu":
            # NCCL only puts a collective in the device's queue; its own watchdog ends a process
            # that waits in vain.
            wait(work)
            return
        vigil = Vigil(self, "a collective")
        while True:
            try:
                wait(work, _LOOK)
            except RuntimeError as error:
                if work.is_completed():
                    self._settle(work, error)
                    return
            else:
                return
            with self._store_answers():
                vigil.look(self._others(), _heart.PATIENCE)
                self._refuse_elsewhere()

    def _settle(self, work: dist.Work, error: RuntimeError) -> None:
        """A collective was done just when its time was up, or it has failed."""
        try:
            wait(work, _LOOK)
        except RuntimeError:
            self._explain(error)

    def _explain(self, error: RuntimeError) -> NoReturn:
        """Say who is gone, now that a collective was cut off."""
        vigil = Vigil(self, "a collective")
        until = time.monotonic() + _CUT_OFF + 2 * _heart.BEAT
        with self._store_answers():
            while time.monotonic() < until:
                vigil.look(self._others(), _CUT_OFF)
                time.sleep(0.2)
        raise RankError(
            f"A collective failed on {self.named([self.rank])}, though all processes are alive: "
            f"{error} They have no common state any more. Look at the network, or at a timeout "
            "that is too short, and go on from the last checkpoint."
        ) from error

    def _await(self, names: Sequence[str]) -> None:
        vigil, pause, due = Vigil(self, "an exchange"), 0.001, 0.0
        while not self._store.check(list(names)):
            if time.monotonic() >= due:
                missing = [rank for rank, name in enumerate(names) if not self._store.check([name])]
                vigil.look(missing, _heart.PATIENCE)
                due = time.monotonic() + _LOOK.total_seconds()
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _refuse_elsewhere(self) -> None:
        left = [r for r in self._others() if self._store.check([f"{self._count}/{r}"])]
        if left:
            self.fail(
                f"{self.named([self.rank])} is in a step that {self.named(left)} will not take, so "
                "it would wait for ever. All ranks must take the same steps: give each as many "
                "batches as the others."
            )

    def fail(self, text: str) -> NoReturn:
        """End the run on all ranks, by this error."""
        self._post(text)
        raise RankError(text[0].upper() + text[1:])

    def _post(self, text: str) -> None:
        text = text[0].upper() + text[1:]
        with self._store_answers():
            self._store.set(f"fault/{self._count}", text)
        self._count += 1
        if self.rank == 0 and self.size > 2:
            # Without torchrun the store may end with this process: let the others read it.
            time.sleep(2 * _LOOK.total_seconds())

    def read_fault(self) -> None:
        """Refuse to wait on, if one of the others has failed."""
        name = f"fault/{self._count}"
        if self._store.check([name]):
            text = self._store.get(name).decode()
            self._count += 1
            raise RankError(
                f"{text}\nSo {self.named([self.rank])} cannot go on. Start the job again, from the "
                "last checkpoint; it may have another number of ranks."
            )

    def refuse_lost(self, ranks: Sequence[int], where: str) -> None:
        """Refuse to wait for processes that are gone."""
        if ranks:
            self.fail(
                f"{self.named(ranks)} of {self.size} gave no sign of life: killed, ended, or cut "
                f"off. So {self.named([self.rank])} waits in vain, in {where}. Start the job "
                "again, from the last checkpoint; it may have another number of ranks."
            )

    def refuse_late(self, ranks: Sequence[int], since: float) -> None:
        """Refuse to wait for longer than the group's timeout."""
        if ranks and time.monotonic() - since > self._timeout.total_seconds():
            self.fail(
                f"{self.named([self.rank])} has waited {self._timeout} for {self.named(ranks)}, "
                "which is longer than the timeout of the process group. Where ranks may be so far "
                "apart: purepyro.distributed.start(timeout=...)."
            )

    def pulse(self) -> Pulse:
        """A watch over the others' hearts."""
        return Pulse(self._store)

    @contextmanager
    def _store_answers(self) -> Iterator[None]:
        try:
            yield
        except dist.DistError as error:
            raise RankError(
                f"The store of the process group does not answer {self.named([self.rank])}: the "
                "process that holds it is gone, which is torchrun, or rank 0. Start the job "
                "again, from the last checkpoint."
            ) from error


class Vigil:
    """One wait for the others.

    Args:
        link: To whom.
        where: For what, in words.
    """

    def __init__(self, link: Link, where: str) -> None:
        self._link = link
        self._where = where
        self._pulse = link.pulse()
        self._since = time.monotonic()

    def look(self, ranks: Sequence[int], patience: float) -> None:
        """Refuse to wait on for ``ranks``, if that were in vain."""
        self._link.read_fault()
        self._link.refuse_lost(self._pulse.still(ranks, patience), self._where)
        self._link.refuse_late(ranks, self._since)


_LINKS: dict[str, Link] = {}


def link_of(mesh: DeviceMesh | None) -> Link:
    """The link of this process within a mesh, or to all others.

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
    group = group_of(mesh)
    name = name_of(group)
    found = _LINKS.get(name)
    if found is None or found.group is not group:
        if found is not None:
            found.close()
        found = _LINKS[name] = Link(group)
    return found


def close_links() -> None:
    """Drop all links, before their groups are taken down."""
    for link in _LINKS.values():
        link.close()
    _LINKS.clear()
