"""One mean over ranks, of a loss and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .._core._types import Params, State
from ._communicator import Link


def averaged(
    link: Link, weight: float, value: Tensor, gradients: Params, buffers: State
) -> tuple[Tensor, Params, State]:
    """The mean loss, gradients and buffers over all ranks, weighted; the same to the bit on each.

    All tensors of a dtype travel as one. Buffers that are whole numbers, such as counts of batches,
    are the same on all ranks already.

    Args:
        link: To the other ranks.
        weight: This rank's weight.
        value: Its loss.
        gradients: Its gradients, by name.
        buffers: The buffers of its networks after the step, by name.
    """
    floating = [name for name, buffer in buffers.items() if buffer.is_floating_point()]
    leaves = [value, *gradients.values(), *(buffers[name] for name in floating)]
    means: dict[int, Tensor] = {}
    for kind in dict.fromkeys((leaf.dtype, leaf.device) for leaf in leaves):
        places = [i for i, leaf in enumerate(leaves) if (leaf.dtype, leaf.device) == kind]
        own = leaves[places[0]].new_full((1,), weight)
        sent = torch.cat([own, *(leaves[i].flatten() * weight for i in places)])
        total = link.sum(sent)
        parts = torch.split(total[1:] / total[0], [leaves[i].numel() for i in places])
        means |= {i: part.reshape(leaves[i].shape) for i, part in zip(places, parts, strict=True)}
    rest = iter(range(1, len(leaves)))
    mean_gradients = {name: means[next(rest)] for name in gradients}
    return means[0], mean_gradients, {**buffers, **{name: means[next(rest)] for name in floating}}
