"""The parts of ``torch.distributed`` that its annotations leave out, with types."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")
Group: TypeAlias = dist.ProcessGroup

_DIST: Any = dist


class Store(Protocol):
    """The key-value store that processes share."""

    def set(self, key: str, value: str, /) -> None:
        """Write a value."""
        ...

    def check(self, keys: list[str], /) -> bool:
        """Whether all keys have a value."""
        ...

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Write a value unless there is one; the value that is there in the end."""
        ...


def group_of(mesh: DeviceMesh | None) -> Group:
    """The process group of a mesh of one dimension; of all processes, without one."""
    group: Group = cast("Any", dist.group.WORLD if mesh is None else mesh.get_group())
    return group


def global_ranks(group: Group) -> list[int]:
    """The ranks, among all processes, of those in a group."""
    ranks: list[int] = _DIST.get_process_group_ranks(group)
    return ranks


def store_of(group: Group) -> Store:
    """The key-value store that the processes of a group share."""
    store: Store = cast("Any", group).get_group_store()
    return store


def message_device(group: Group) -> torch.device:
    """The device of tensors that carry messages: the CPU, unless the group has NCCL alone."""
    on_cpu = "cpu:" in _DIST.get_backend_config(group)
    return torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())


def sum_in_place(tensor: torch.Tensor, group: Group) -> None:
    """Replace a tensor by its sum over a group; the same to the bit on all processes."""
    _DIST.all_reduce(tensor, group=group)


def gather_tensors(tensor: torch.Tensor, group: Group) -> list[torch.Tensor]:
    """The tensors of all processes of a group, of one shape, by rank."""
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    _DIST.all_gather(found, tensor, group=group)
    return found


def gather_objects(value: T, group: Group) -> list[T]:
    """The objects of all processes of a group, by rank."""
    found: list[Any] = [None] * dist.get_world_size(group)
    _DIST.all_gather_object(found, value, group=group)
    return found


def is_connected(rank: int, group: Group) -> bool:
    """Whether gloo still has a connection to a process of a group."""
    try:
        _DIST.isend(torch.zeros(1), group=group, group_dst=rank)
    except (RuntimeError, ValueError):
        return False
    return True


def abort(group: Group) -> None:
    """Close the connections of a group, so that no process of it waits for this one."""
    cast("Any", group).abort()


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
        given |= {"store": _DIST.HashStore(), "rank": 0, "world_size": 1}
    _DIST.init_process_group(backend, timeout=timeout, **given)


def end() -> None:
    """Take the group of all processes down."""
    _DIST.destroy_process_group()
