"""What the run under way was given, and what it computes with: one record, in one variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar

import attrs
import pyro
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint

from .._compat._handlers import OWN
from ..random import Key
from ._buffers import Buffers
from ._substitution import Substitution


@attrs.define(eq=False)
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
        serve_param: Gives the value of a ``pyro.param`` statement, from its name, initial value and
            constraint, as long as the run lasts.
    """

    key: Key
    params: Mapping[str, Tensor]
    collects: bool
    rows_key: Key | None
    substitution: Substitution
    buffers: Buffers
    params_read: set[str]
    fields_read: set[str]
    serve_param: Callable[[str, object, Constraint], Tensor] | None = None


# Outside of runs a Module is an ordinary Pyro model.
RUN: ContextVar[RunContext | None] = ContextVar("purepyro_run", default=None)


def given_params() -> Mapping[str, Tensor] | None:
    """The parameters of the run under way; ``None`` outside of runs, and where it may start new."""
    run = RUN.get()
    return None if run is None or run.collects else run.params


def param(
    name: str,
    init: Tensor | Callable[[], Tensor],
    constraint: Constraint = constraints.real,
    event_dim: int | None = None,
) -> Tensor:
    """``pyro.param``; in a run without its message, where no handler is there to see that."""
    run, handlers = RUN.get(), OWN.handlers
    # The run's own handler, which keeps sites only, is always there.
    if run is None or run.serve_param is None or handlers is None or len(handlers) > 1:
        return pyro.param(name, init, constraint=constraint, event_dim=event_dim)
    return run.serve_param(name, init, constraint)
