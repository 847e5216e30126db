"""The processes of a job, from its first line to its last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed as dist

from .._compat import _c10d
from ._communicator import connected


@contextmanager
def start(*, timeout: timedelta = timedelta(minutes=30)) -> Iterator[torch.device]:
    """A block in which the processes that torchrun has started know each other.

    It sets up torch's process group, with NCCL for tensors on CUDA and gloo for others, and takes
    it down again. Without torchrun this process is all there is, so that a script runs by plain
    ``python`` too. A group that is there already is used, and left as it is.

    Args:
        timeout: How long a process waits for one that is alive but does not come. A process that
            has ended is noticed at once, by its connections.

    Yields:
        This process's device: ``cuda:LOCAL_RANK`` where there is CUDA, else the CPU.

    Examples:
        >>> from purepyro import random
        >>> from purepyro.distributed import start
        >>> with start() as device:
        ...     key = random.key(0).to(device)
    """
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    device = torch.device("cpu")
    if cuda:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield device
        return
    _c10d.begin(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        timeout,
        alone="RANK" not in os.environ,
        device=device if cuda else None,
    )
    try:
        with connected(None) as ranks:
            yield device
            # No process ends before the last is done: it may be the one that holds the store.
            ranks.exchange("end")
    finally:
        _c10d.end()
