"""What the exchanges need of torch.distributed's private parts, with a typed face."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeAlias, cast

import torch
from torch import distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore
from torch._C._distributed_c10d import Store as _Store
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh

Store: TypeAlias = _Store

_C10D: Any = distributed_c10d
_DIST: Any = dist
_USUAL = timedelta(minutes=30)


def group_of(mesh: DeviceMesh | None) -> dist.ProcessGroup:
    """The process group of a mesh of one dimension; of all processes, without one."""
    group: dist.ProcessGroup = cast("Any", dist.group.WORLD if mesh is None else mesh.get_group())
    return group


def name_of(group: dist.ProcessGroup) -> str:
    """The name by which all its processes know a group."""
    return str(cast("Any", group).group_name)


def ranks_of(group: dist.ProcessGroup) -> list[int]:
    """The ranks, among all processes, of those in a group."""
    ranks: list[int] = _DIST.get_process_group_ranks(group)
    return ranks


def new_connection(prefix: str) -> Store:
    """The store of all processes, under a prefix; its calls wait for no other connection's."""
    store: Store = PrefixStore(prefix, _C10D._get_default_store().clone())
    return store


def timeout_of(group: dist.ProcessGroup) -> timedelta:
    """How long a process of the group waits for the others, as its user has set it."""
    backends: list[Any] = [
        cast("Any", group)._get_backend(torch.device(device))
        for device in ("cpu", "cuda")
        if device in {each.type for each in cast("Any", group)._device_types}
    ]
    for backend in backends:
        found = getattr(getattr(backend, "options", None), "_timeout", None)
        if isinstance(found, timedelta):
            return found
    return _USUAL


def start_sum(tensor: torch.Tensor, group: dist.ProcessGroup) -> dist.Work:
    """Begin to replace a tensor by its sum over a group."""
    work: dist.Work = _DIST.all_reduce(tensor, group=group, async_op=True)
    return work


def start_gather(
    places: list[torch.Tensor], tensor: torch.Tensor, group: dist.ProcessGroup
) -> dist.Work:
    """Begin to fill ``places`` with the tensors of all processes of a group."""
    work: dist.Work = _DIST.all_gather(places, tensor, group=group, async_op=True)
    return work


def wait(work: dist.Work, timeout: timedelta | None = None) -> None:
    """Wait for a collective, for so long at most."""
    each: Any = work
    if timeout is None:
        each.wait()
    else:
        each.wait(timeout)


def begin(
    backend: str,
    timeout: timedelta,
    *,
    alone: bool,
    device: torch.device | None = None,
) -> None:
    """Set up the group of all processes: from the environment, or of this process alone."""
    given: dict[str, Any] = {"device_id": device} if device is not None else {}
    if alone:
        given |= {"store": HashStore(), "rank": 0, "world_size": 1}
    _DIST.init_process_group(backend, timeout=timeout, **given)


def end() -> None:
    """Take the group of all processes down."""
    _DIST.destroy_process_group()
