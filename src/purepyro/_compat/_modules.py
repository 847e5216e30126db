"""What ``torch.nn`` modules, tensors and checkpoints keep private."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from ._private import held, private

PARAMETERS, BUFFERS, CHILDREN = "_parameters", "_buffers", "_modules"
"""Where a module has its tensors and its layers: attributes that bind nothing else."""

_USE = "networks"
_saved_hooks: Callable[[bool], tuple[Any, ...] | None] = private(
    "torch._C:_autograd._top_saved_tensors_default_hooks",
    "telling whether a layer runs under torch.utils.checkpoint",
)


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters, without those of its layers: the dict that it computes with."""
    own: dict[str, nn.Parameter | None] = held(module, PARAMETERS, _USE)
    return own


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers, likewise."""
    own: dict[str, Tensor | None] = held(module, BUFFERS, _USE)
    return own


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's own layers, likewise."""
    own: dict[str, nn.Module | None] = held(module, CHILDREN, _USE)
    return own


version_of: Callable[[Tensor], int] = attrgetter("_version")
"""How often a tensor was written to in place."""


def renew_flat_weights(module: nn.RNNBase) -> None:
    """Let a recurrent layer compute with its parameters, of which it keeps a list."""
    names: list[str] = held(module, "_flat_weights_names", "recurrent layers")
    own = parameters_of(module)
    vars(module)["_flat_weights"] = [own.get(name) for name in names]


def forget_compiled(own: dict[str, Any]) -> None:
    """Let a module, of these attributes, run as it was written.

    Compiled code reads the tensors of the module that it was compiled for.
    """
    if own.get("_compiled_call_impl") is not None:
        own["_compiled_call_impl"] = None
    inner = own.get(CHILDREN, {}).get("_orig_mod")
    if inner is not None and "dynamo_ctx" in own:  # what torch.compile(net) returns
        own["forward"] = inner


def is_checkpointed() -> bool:
    """Whether what runs now runs again in the backward pass, by ``torch.utils.checkpoint``."""
    hooks = _saved_hooks(True)
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
