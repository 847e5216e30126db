"""The processes of a job, from its first line to its last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed as dist

from .._compat import _c10d
from ._communicator import close_links, link_of

_HALF_AN_HOUR = timedelta(minutes=30)


@contextmanager
def start(*, timeout: timedelta = _HALF_AN_HOUR) -> Iterator[torch.device]:
    """A block in which the processes that torchrun has started know each other.

    It sets up torch's process group, with NCCL for tensors on CUDA and gloo for others, and takes
    it down again. Without torchrun this process is all there is, so that a script runs by plain
    ``python`` too. A group that is there already is used, and left as it is.

    Args:
        timeout: How long a process waits for one that is alive but does not come. A process that is
            gone is noticed within some 15 seconds, whatever the timeout is.

    Yields:
        This process's device: ``cuda:LOCAL_RANK`` where there is CUDA, else the CPU.

    Example:
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
        link = link_of(None)
        with link.together():
            yield device
        # Nobody leaves before the last is done: its store may be on the one who leaves.
        link.exchange("end")
    finally:
        close_links()
        _c10d.end()
