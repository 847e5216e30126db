"""One run of one tree of Modules: which fields were read, with what values, at which paths."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Protocol

import attrs
from torch import Tensor

from .._compat._pyro import Plates, Watch, in_plate, outside_plates
from .._errors import CycleError, DeclarationError, OutsideRunError

# Keys of an instance's __dict__ that are no fields. `_BINDING` is set on the copies a run makes.
BINDING = "_purepyro_binding"
OVERRIDES = "_purepyro_overrides"


class Declaration(Protocol):
    """What a scope needs to know of a ``PyroParam`` or ``PyroSample``."""

    @property
    def once(self) -> bool:
        """Whether the value of the first read serves all later reads of a run."""
        ...

    @property
    def local(self) -> bool | None:
        """Whether a first read inside a plate makes the field local to it."""
        ...

    def emit(self, path: str, owner: object) -> Tensor:
        """Emit Pyro's effect for the site at ``path``; its answer is the field's value."""
        ...

    def became_local(self, path: str, owner: object, value: Tensor, plates: Plates) -> None:
        """Take note that its first read, inside ``plates``, made the field local to them."""
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
        self._shared: list[str] = []  # of these, the fields that must not depend on a plate
        self._plates: dict[str, Plates] = {}  # of the local fields
        self._of_rows: set[str] = set()  # the fields whose priors read a local one

    def read(self, path: str, owner: object, declaration: Declaration) -> Tensor:
        """The value at ``path``; emits its effect at the first read only.

        Raises:
            CycleError: if reading the field needs its own value.
            DeclarationError: if a field outside of plates needs one that is local to a plate.
        """
        value = self._values.get(path)
        if value is not None:
            if path in self._plates:
                self._use_local(path, value)
            return value
        if path in self._pending:
            raise CycleError(_cycle_message(self._pending, path))
        self._pending.append(path)
        try:
            value = self._emit(path, owner, declaration)
        finally:
            self._pending.pop()
        if declaration.once:
            self._values[path] = value
        fields = FIELDS.get()
        if fields is not None:
            fields.add(path)
        return value

    def _emit(self, path: str, owner: object, declaration: Declaration) -> Tensor:
        if declaration.local is False:
            self._shared.append(path)
            try:
                with outside_plates() if in_plate() else nullcontext():
                    return declaration.emit(path, owner)
            finally:
                self._shared.pop()
        if not in_plate():
            return declaration.emit(path, owner)
        with Watch(path) as watch:
            value = declaration.emit(path, owner)
        # A computed value has rows only if what it is computed from has.
        if watch.plates and not (watch.computed and path not in self._of_rows):
            self._plates[path] = watch.plates
            self._of_rows.update(self._pending)
            if not watch.computed:
                declaration.became_local(path, owner, value, watch.plates)
        return value

    def _use_local(self, path: str, value: Tensor) -> None:
        self._of_rows.update(self._pending)
        if self._shared:
            raise DeclarationError(
                _local_message(self._shared[-1], path, self._plates[path], value)
            )


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


def _local_message(shared: str, path: str, plates: Plates, value: Tensor) -> str:
    names = " and ".join(repr(frame.name) for frame in plates)
    return (
        f"The field {shared!r} is declared with local=False, so it is drawn once, outside of "
        f"plates. But its prior needs the field {path!r}, which was first read inside the plate "
        f"{names} and is local to it (shape {list(value.shape)}). Declare {path!r} with "
        f"local=False too, or read it before the plate; or let {shared!r} be local by local=True."
    )
