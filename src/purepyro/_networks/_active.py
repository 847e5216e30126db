"""What the networks of a run compute with."""

from __future__ import annotations

from contextvars import ContextVar

import attrs

from ._buffers import Buffers
from ._substitution import Substitution


@attrs.frozen
class Nets:
    """The tensors that stand for parameters of networks, and the buffers.

    Attributes:
        substitution: What stands for which tensor of a network.
        buffers: The buffers; ``None`` where they are changed in place.
    """

    substitution: Substitution
    buffers: Buffers | None


# Those of the run under way. Outside of runs a Module is an ordinary Pyro model, which changes the
# buffers of its torch.nn modules in place.
ACTIVE: ContextVar[Nets | None] = ContextVar("purepyro_nets", default=None)
