"""The mean over ranks of a loss, its gradients and buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core._types import Params, State
from ._communicator import Communicator


def mean_over_ranks(
    communicator: Communicator, weight: float, loss: Tensor, gradients: Params, buffers: State
) -> tuple[Tensor, Params, State]:
    """The weighted mean over all ranks, the same to the bit on each.

    All tensors of a dtype and device travel as one. Integer buffers, such as counts of batches, are
    the same on all ranks already.

    Args:
        communicator: Connects the ranks.
        weight: This rank's weight.
        loss: Its loss.
        gradients: Its gradients, by name.
        buffers: The buffers of its networks after the step, by name.
    """
    total = communicator.begin_step(weight)
    floating = [name for name, buffer in buffers.items() if buffer.is_floating_point()]
    leaves = [loss, *gradients.values(), *(buffers[name] for name in floating)]
    means = list(leaves)
    for kind in dict.fromkeys((leaf.dtype, leaf.device) for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if (leaf.dtype, leaf.device) == kind]
        weighted = torch.cat([leaves[i].flatten() * weight for i in places])
        sums = torch.split(communicator.sum(weighted), [leaves[i].numel() for i in places])
        for i, part in zip(places, sums, strict=True):
            means[i] = (part / total).reshape(leaves[i].shape)
    split = 1 + len(gradients)
    mean_gradients = dict(zip(gradients, means[1:split], strict=True))
    return means[0], mean_gradients, {**buffers, **dict(zip(floating, means[split:], strict=True))}
