"""Pyro's messages, which it leaves untyped, and the statements that send them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

# A TypedDict whose keys are all optional, though all are always there.
Msg: TypeAlias = Any

# ``pyro.sample`` as Pyro has it, but for the types: it wants a distribution of torch, and a dict.
emit_sample: Callable[..., Tensor] = pyro.sample

# Keys of a message's `infer` that Pyro keeps to itself.
IS_DETERMINISTIC = "_deterministic"
IS_UNRECORDED = "_do_not_trace"

# Says to losses that a guide itself decides what masks its site: it knows whether the value of a
# masked element counts elsewhere.
MASKS_ITSELF = "purepyro_masks_itself"
OWN_MASK: Any = {MASKS_ITSELF: True}


def message_infer(msg: Msg) -> dict[str, object]:
    """The ``infer`` settings of a message."""
    return dict(msg["infer"] or {})


def message_distribution(msg: Msg) -> TorchDistributionMixin:
    """The distribution of a sample message."""
    fn: TorchDistributionMixin = cast("Any", msg["fn"])
    return fn


def message_value(msg: Msg) -> Tensor:
    """The value of a message that was served."""
    value: Tensor = cast("Any", msg["value"])
    return value


def drawn_key(name: str) -> Tensor:
    """Two random words, drawn as a site of the run under way of which no record is kept.

    Inside ``init`` they come from its key; in plain Pyro from torch's global generator.
    """
    infer = {"is_auxiliary": True, IS_UNRECORDED: True}
    return emit_sample(name, partial(torch.randint, 0, 2**62, (2,)), infer=infer)


def let_subsample(value: Tensor, unconstrained: Tensor) -> Tensor:
    """``value``, so marked that a plate can subsample it as the value of a ``pyro.param``.

    The plate asks the value for its unconstrained tensor, and leaves a note on that; both are views
    here, so that the tensors given to the run stay as they are.
    """
    marked = value.view_as(value)
    setattr(marked, "unconstrained", partial(unconstrained.view_as, unconstrained))  # noqa: B010
    return marked
