"""One run of one tree of Modules: which fields were read, with what values, at which paths."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

import attrs
from torch import Tensor

from ._errors import CycleError, OutsideRunError

# Keys of an instance's __dict__ that are no fields. `_BINDING` is set on the copies a run makes.
BINDING = "_purepyro_binding"
OVERRIDES = "_purepyro_overrides"


class Declaration(Protocol):
    """What a scope needs to know of a ``PyroParam`` or ``PyroSample``."""

    @property
    def once(self) -> bool:
        """Whether the value of the first read serves all later reads of a run."""
        ...

    def emit(self, path: str, owner: object) -> Tensor:
        """Emit Pyro's effect for the site at ``path``; its answer is the field's value."""
        ...


# The names of the parameters given to the run under way; None outside of runs, and where a run
# may start new ones. A guide looks here for the sites it was fitted to.
GIVEN: ContextVar[frozenset[str] | None] = ContextVar("purepyro_given", default=None)


@attrs.frozen
class Running:
    """What the run under way was given: a guide runs its model with the same.

    Attributes:
        key: The key.
        params: The parameters.
        collects: Whether the run may start new ones.
        params_read: The names of those that were asked for so far; a run inside adds its own.
    """

    key: Tensor
    params: Mapping[str, Tensor]
    collects: bool
    params_read: set[str]


RUNNING: ContextVar[Running | None] = ContextVar("purepyro_running", default=None)


# The paths of the fields read in the run under way; None outside of runs.
FIELDS: ContextVar[set[str] | None] = ContextVar("purepyro_fields", default=None)


class Scope:
    """The values read so far in one run, and the reads under way."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._pending: list[str] = []

    def read(self, path: str, owner: object, declaration: Declaration) -> Tensor:
        """The value at ``path``; emits its effect at the first read only.

        Raises:
            CycleError: if reading the field needs its own value.
        """
        value = self._values.get(path)
        if value is not None:
            return value
        if path in self._pending:
            raise CycleError(_cycle_message(self._pending, path))
        self._pending.append(path)
        try:
            value = declaration.emit(path, owner)
        finally:
            self._pending.pop()
        if declaration.once:
            self._values[path] = value
        fields = FIELDS.get()
        if fields is not None:
            fields.add(path)
        return value


@attrs.frozen
class Binding:
    """Where in which run a copy of a Module stands."""

    scope: Scope
    path: str


def read(owner: object, name: str, declaration: Declaration) -> Tensor:
    """The value of a declared field, or an error if ``owner`` takes part in no run."""
    binding: Binding | None = owner.__dict__.get(BINDING)
    if binding is None:
        raise OutsideRunError(_outside_message(type(owner).__name__, name))
    return binding.scope.read(join(binding.path, name), owner, declaration)


def join(prefix: str, name: str) -> str:
    """The dotted path of ``name`` under ``prefix``.

    >>> join("", "weight"), join("linear", "weight"), join("linear", "")
    ('weight', 'linear.weight', 'linear')
    """
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _cycle_message(pending: list[str], path: str) -> str:
    circle = [*pending[pending.index(path) :], path]
    return (
        f"The fields {' -> '.join(map(repr, circle))} need each other in a circle, so none of "
        "them can be computed first. Let one of them stop reading the next, for example by "
        "giving it a prior or initial value built from plain fields."
    )


def _outside_message(owner: str, name: str) -> str:
    return (
        f"{owner}.{name} was read outside a run. A declared field has no value of its own: "
        "parameters live in the params dict and random variables are drawn from a key. "
        f"Read it inside forward, or run a method by apply(model.method, params, key, ...); "
        f"for a parameter's value write constrain(model, params)[{name!r}]."
    )
