"""Copies of ``torch.nn`` modules that share everything but the tensors they compute with.

Swapping tensors on a shared module, as ``torch.func.functional_call`` does, is seen by other
threads. A skeleton is a module of its own: same code, same settings, other tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def skeleton(net: nn.Module) -> nn.Module:
    """A copy of ``net`` whose tensors can be swapped without ``net`` noticing."""
    return _copy(net, {})


def swap(copy: nn.Module, tensors: Mapping[int, Tensor]) -> None:
    """Let a skeleton compute with other tensors.

    Args:
        copy: A skeleton.
        tensors: For the ``id`` of a parameter or buffer that it holds, the tensor in its place.
    """
    for module in copy.modules():
        for kind in ("_parameters", "_buffers"):
            # Not by setattr: nn.Module would refuse plain tensors in place of parameters.
            own: dict[str, Tensor | None] = module.__dict__[kind]
            own.update({n: tensors[id(t)] for n, t in own.items() if id(t) in tensors})
        if isinstance(module, nn.RNNBase):
            # RNNs compute with this list, not with their parameters.
            names = module._flat_weights_names
            module.__dict__["_flat_weights"] = [module._parameters.get(name) for name in names]


def _copy(net: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    if id(net) in done:
        return done[id(net)]
    copy = done[id(net)] = object.__new__(type(net))
    copy.__dict__.update(net.__dict__)
    copy.__dict__["_parameters"] = dict(net._parameters)
    copy.__dict__["_buffers"] = dict(net._buffers)
    copy.__dict__["_modules"] = {
        name: child if child is None else _copy(child, done) for name, child in net._modules.items()
    }
    return copy
