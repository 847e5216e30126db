"""What the run under way was given, and what it computes with: one record, in one variable."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

import attrs
from torch import Tensor

from ..random import Key
from ._buffers import Buffers
from ._substitution import Substitution


@attrs.frozen(eq=False)
class RunContext:
    """A run of a model, for what runs inside of it: its fields, its networks, its guide's model.

    Attributes:
        key: The key of the run.
        params: The parameters that it was given.
        collects: Whether it may start new ones.
        rows_key: What draws the rows of subsampled plates, if it is not the key of the run.
        substitution: What stands for which tensor of a network.
        buffers: The buffers of networks.
        params_read: The names of the parameters that were asked for so far; a run inside adds its
            own.
        fields_read: The paths of the declared fields that were read so far.
    """

    key: Key
    params: Mapping[str, Tensor]
    collects: bool
    rows_key: Key | None
    substitution: Substitution
    buffers: Buffers
    params_read: set[str]
    fields_read: set[str]


# Outside of runs a Module is an ordinary Pyro model.
RUN: ContextVar[RunContext | None] = ContextVar("purepyro_run", default=None)


def given_params() -> Mapping[str, Tensor] | None:
    """The parameters of the run under way; ``None`` outside of runs, and where it may start new."""
    run = RUN.get()
    return None if run is None or run.collects else run.params
