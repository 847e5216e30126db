"""The effect handler at the heart of ``apply``.

It serves each ``pyro.param`` from an explicit dict and each ``pyro.sample`` from an explicit key,
or from given values, and checks what it hands out and what it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeGuard

from pyro.distributions import ImproperUniform, constraints
from pyro.distributions.torch_distribution import (
    ExpandedDistribution,
    MaskedDistribution,
)
from torch import Tensor, nn
from torch.distributions import Independent, transform_to
from torch.distributions.constraints import Constraint

from .._compat._isolation import OWN, Shared
from .._compat._pyro import (
    Msg,
    as_they_are,
    is_empty_plate,
    is_full_plate,
    is_mapped,
    is_subsample,
    is_tracing,
    is_transforming,
    let_not_adopt,
    let_subsample,
    message_distribution,
    module_being_registered,
    plate_rows,
    refuse_setup,
    registered,
    unchecking,
)
from .._errors import (
    DtypeError,
    MissingNameError,
    ShapeError,
    UnsupportedDistributionError,
    describe,
    near,
)
from .._networks._run_context import RunContext
from ..random import name_key
from ..random._derive import words_of
from ..random._mode import DrawingFrom, KeyedRandom
from ..random._sample import draw_from
from ..random._source import KeySource
from ._sites import feasible, is_exempt
from ._validation import require_valid_arguments, require_valid_value
from ._value_checks import (
    check_initial,
    check_like,
    check_observed,
    checked_rows,
    checked_value,
)


class SubstituteHandler:
    """Serves the statements of one run, and takes note of the names that were asked for.

    Args:
        context: The run.
        values: Values of latent sites, in place of draws.
        draws: Whether sites without a value are drawn; if not, they are an error.
        elsewhere: Starting values of parameters that another model starts.
        constraints: The constraints of parameters that runs which belong together know of.
        find_constraint: Looks for one that none of them has said yet.
        on_network: Told of each network that a ``pyro.module`` statement registers, with the
            prefix that its names get.

    Attributes:
        before: Pyro's state before the run, which has to be known before the first message.
        params: The parameters; in a run that collects them also those it started.
        constraints: The constraints of those that were asked for.
        values_read: The names of the given values that were asked for.
    """

    before: Shared

    def __init__(
        self,
        context: RunContext,
        *,
        values: Mapping[str, Tensor],
        draws: bool,
        elsewhere: Mapping[str, Tensor],
        constraints: dict[str, Constraint],
        find_constraint: Callable[[str], Constraint | None] | None,
        on_network: Callable[[nn.Module, str], None],
    ) -> None:
        self.params = dict(context.params)
        self.constraints: dict[str, Constraint] = {}
        self.values_read: set[str] = set()
        self._context = context
        self._substitution = context.substitution
        self._words = words_of(context.key)
        self._values = values
        self._draws = draws
        self._elsewhere = elsewhere
        self._shared = constraints
        self._find_constraint = find_constraint
        self._on_network = on_network

    def process_message(self, msg: Msg) -> None:
        """Serve a message that no handler served, in place of Pyro's own default."""
        handlers = OWN.handlers
        if handlers is None:  # another thread's, or of a time before its turn
            self.before.default(msg)
            return
        if len(handlers) > 1:
            refuse_setup()
        if msg["type"] == "param" and msg["value"] is None:
            msg["value"] = self._param(msg)
            msg["done"] = True
            return
        if msg["type"] != "sample":
            self.before.default(msg)
            return
        name, unchecked = str(msg["name"]), None
        if is_transforming():
            blind = is_mapped()  # torch's own checks are off
            if blind and self.before.validates and not is_exempt(msg):
                unchecked = msg["fn"]
                require_valid_arguments(name, unchecked)
            if blind or is_tracing():
                msg["fn"] = unchecking(msg["fn"])
        if msg["value"] is None:
            msg["value"] = self._sample(msg, name)
        elif msg["is_observed"]:
            with self._aside():
                check_observed(msg)
        if unchecked is not None and (msg["is_observed"] or name in self._values):
            require_valid_value(name, unchecked, msg["value"])
        msg["done"] = True

    def _aside(self) -> AbstractContextManager[object]:
        """A block for checks, which need no mode unless it replaces something."""
        return nullcontext() if self._substitution else as_they_are()

    def _sample(self, msg: Msg, name: str) -> Tensor:
        fn, key, words = message_distribution(msg), self._context.key, self._words
        if is_subsample(fn):
            if is_empty_plate(fn):
                raise ShapeError(
                    f"The plate {name!r} has size 0, for which a plate's scale is not defined. "
                    "Pass at least one row, or leave the plate out where there is none."
                )
            if name in self._values:
                self.values_read.add(name)
                return checked_rows(name, plate_rows(fn), self._values[name])
            if is_full_plate(fn):
                indices: Tensor = fn()
                return indices
            if self._context.rows_key is not None:
                key, words = self._context.rows_key, None
        elif name in self._values:
            self.values_read.add(name)
            with self._aside():
                return checked_value(name, fn, self._values[name])
        if not self._draws:
            raise MissingNameError(
                f"The values have none for the site {name!r}, so the log density is not defined. "
                f"{near(name, self._values)} Give a value for every latent site, as "
                "trace(...)[1].latents does."
            )
        source = KeySource(key, name, words)
        if msg["args"] or msg["kwargs"] or not hasattr(fn, "sample"):
            with DrawingFrom(source):
                drawn: Tensor = fn(*msg["args"], **msg["kwargs"])
            return drawn
        try:
            return draw_from(source, fn)
        except UnsupportedDistributionError as error:
            if self._context.collects and is_improper(fn):  # a first look goes on from any value
                return feasible(fn)
            raise UnsupportedDistributionError(f"The site {name!r}: {error}") from None

    def _param(self, msg: Msg) -> Tensor:
        name, init = str(msg["name"]), msg["args"][1] if len(msg["args"]) > 1 else None
        known = registered(name) if init is None else None
        again = init is None and known is None
        constraint = known[1] if known else msg["kwargs"].get("constraint", constraints.real)
        if again:  # a read without a start has no constraint of its own
            constraint = self._said_elsewhere(name)
        alias = self._alias(name, known[0] if known else init)
        unconstrained = self._unconstrained(name, known, init, constraint, alias)
        if isinstance(init, Tensor):
            check_like(name, unconstrained, init, constraint)
        if alias is None:
            self._context.params_read.add(name)
            self.constraints[name] = self._shared[name] = constraint
        value = unconstrained if constraint is constraints.real else _map(constraint, unconstrained)
        if alias is None:
            self._register(name, known, init, unconstrained, value)
        if msg["cond_indep_stack"] and msg["kwargs"].get("event_dim") is not None:
            value = let_subsample(value, unconstrained)
        elif again:
            value = let_not_adopt(value, name)
        return value

    def _said_elsewhere(self, name: str) -> Constraint:
        """The constraint of a parameter, as another statement has it."""
        if name in self._shared:
            return self._shared[name]
        found = None if self._find_constraint is None else self._find_constraint(name)
        if found is None:
            raise MissingNameError(
                f"The statement pyro.param({name!r}) has no initial value, and nothing in this run "
                "said before what its constraint is, without which the value cannot be known. "
                "Write pyro.param(name, initial_tensor, constraint=...) here too; in a fit, model "
                "and guide know of each other's."
            )
        return found

    def _alias(self, name: str, original: object) -> str | None:
        """The other name under which the same parameter of a network stands in the params."""
        if not _is_parameter(original):
            return None
        other = self._substitution.name_of(original)
        return other if other != name else None

    def _unconstrained(
        self,
        name: str,
        known: tuple[Tensor, Constraint] | None,
        init: object,
        constraint: Constraint,
        alias: str | None,
    ) -> Tensor:
        if alias is not None and isinstance(original := known[0] if known else init, Tensor):
            return self._substitution.value_of(original)
        if name not in self.params:
            if init is None and known is None and name in self._elsewhere:
                return self._elsewhere[name]
            if not self._context.collects:
                raise MissingNameError(
                    f"The params have no {name!r}, which the model reads. "
                    f"{near(name, self.params)} Start from init(model, key), or from "
                    "init(model, key, *args) if pyro.param statements make parameters."
                )
            start = known[0] if known else self._initial(name, init, constraint)
            self.params[name] = start.detach().clone()
        return self.params[name]

    def _register(
        self,
        name: str,
        known: tuple[Tensor, Constraint] | None,
        init: object,
        unconstrained: Tensor,
        value: Tensor,
    ) -> None:
        """Let the network to which a parameter belongs compute with its value."""
        if known:
            self._substitution.register(name, known[0], unconstrained)
        elif _is_parameter(init):
            self._substitution.register(name, init, value)
            net = module_being_registered(name)
            if net is not None:
                self._on_network(net, name[: name.index("$$$") + 3])

    def _initial(self, name: str, init: object, constraint: Constraint) -> Tensor:
        if init is None:
            raise MissingNameError(
                f"The statement pyro.param({name!r}) has no initial value, so there is nothing to "
                "start from. Write pyro.param(name, initial_tensor)."
            )
        value = init
        if callable(init) and not isinstance(init, Tensor):
            with KeyedRandom(name_key(self._context.key, name)):
                value = init()
        if isinstance(value, nn.Parameter):
            value = value.detach()
        if not isinstance(value, Tensor):
            raise DtypeError(
                f"The initial value of the parameter {name!r} is {describe(value)}, which is no "
                "Tensor. Write for example torch.tensor(1.0)."
            )
        check_initial(name, value, constraint)
        return _unmap(constraint, value)


def _is_parameter(value: object) -> TypeGuard[nn.Parameter]:
    # The last is slow, and for most one of the others is false.
    kind = type(value)
    return kind is not Tensor and isinstance(value, Tensor) and isinstance(value, nn.Parameter)


def is_improper(fn: object) -> bool:
    """Whether a distribution has no draws since its density cannot be normalised."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return isinstance(fn, ImproperUniform)


def _map(constraint: Constraint, unconstrained: Tensor) -> Tensor:
    value: Tensor = transform_to(constraint)(unconstrained)
    return value


def _unmap(constraint: Constraint, value: Tensor) -> Tensor:
    unconstrained: Tensor = transform_to(constraint).inv(value)
    return unconstrained
