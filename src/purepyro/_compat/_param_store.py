"""Pyro's parameter store, and the statements that fill it."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any, cast

import pyro
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from ._private import held

_STORE: Any = pyro.get_param_store()
_MODULE_CODE: CodeType = cast("Any", pyro.module).__code__


def stored_params() -> dict[str, Tensor]:
    """The unconstrained parameters in Pyro's own store."""
    return dict(_STORE.named_parameters())


def registered(name: str) -> tuple[Tensor, Constraint] | None:
    """The unconstrained value and the constraint that a PyroModule has for a parameter it reads."""
    if name not in _STORE:
        return None
    constraints: dict[str, Constraint] = held(_STORE, "_constraints", "parameters of PyroModules")
    return _STORE.named_parameters().mapping[name], constraints[name]


def module_being_registered(name: str) -> nn.Module | None:
    """The network whose parameter ``name`` a ``pyro.module`` statement under way registers.

    Pyro sends a message for each parameter and none for the network.
    """
    if "$$$" not in name:
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _MODULE_CODE:
            net: nn.Module = frame.f_locals["nn_module"]
            return net
        frame = frame.f_back
    return None
