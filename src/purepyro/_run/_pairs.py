"""Sessions of several models: what one of them says of parameters holds in the others too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from .._networks._substitution import Substitution
from ._execute import RunConfig, execute
from ._session import Call, Find, FindConstraint, Session, root_of

Models = tuple[Callable[..., object], ...]


def session_of(models: Models, call: Call) -> Session:
    """The session for runs of ``models``: a guide and its model, or a model alone."""
    return Session(call, *lookups(models, call))


def lookups(models: Models, call: Call) -> tuple[Find | None, FindConstraint | None]:
    """What a session asks for parameters that none of its runs has met yet."""
    if len(models) < 2:
        return None, None
    return partial(_register_all, models, call), partial(_constraint_in, models, call)


class _Statements(NamedTuple):
    """What the statements of a plain model say of its parameters."""

    originals: dict[str, Tensor]
    constraints: dict[str, Constraint]


# Which is found out by running them.
_STATEMENTS: WeakKeyDictionary[Callable[..., object], _Statements] = WeakKeyDictionary()


def _constraint_in(models: Models, call: Call, name: str) -> Constraint | None:
    """The constraint of a parameter, as some other of the models has it."""
    for model in models:
        if root_of(model) is None:
            found = _run_for_statements(model, call).constraints.get(name)
            if found is not None:
                return found
    return None


def _register_all(models: Models, call: Call, substitution: Substitution) -> None:
    """Register what any of the models does: one may use a network before another registers it."""
    for model in models:
        if root_of(model) is not None:
            continue
        for name, original in _run_for_statements(model, call).originals.items():
            if substitution.name_of(original) is None:
                value = call.params.get(name)
                substitution.register(name, original, original.detach() if value is None else value)


def _run_for_statements(model: Callable[..., object], call: Call) -> _Statements:
    """Run a model once more, the first time that it is asked for, to see its statements alone."""
    try:
        known = _STATEMENTS.get(model)
    except TypeError:  # it cannot be hashed
        known = None
    if known is None:
        config = RunConfig(params=call.params, collect=True)
        session = Session(call)
        # The run itself is of no interest, nor how far it comes.
        with torch.no_grad(), suppress(Exception), session, session:
            execute(model, call.key, call.args, call.kwargs, config, session)
        known = _Statements(dict(session.substitution.originals), session.constraints)
        with suppress(TypeError):
            _STATEMENTS[model] = known
    return known
