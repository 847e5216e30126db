"""The effect handler at the heart of ``apply``.

It answers each ``pyro.param`` from an explicit dict and each ``pyro.sample`` from an explicit
key, or from given values, and checks what it hands out and what it is handed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TypeGuard

import torch
from pyro.distributions import ImproperUniform, constraints, is_validation_enabled
from pyro.distributions.torch_distribution import (
    ExpandedDistribution,
    MaskedDistribution,
)
from torch import Tensor, nn
from torch.distributions import Independent, transform_to
from torch.distributions.constraints import Constraint

from .._compat._function_modes import quiet
from .._compat._functorch import plain
from .._compat._pyro import (
    Msg,
    as_they_are,
    is_empty_plate,
    is_full_plate,
    is_mapped,
    is_subsample,
    is_tracing,
    let_not_adopt,
    let_subsample,
    message_distribution,
    message_value,
    module_being_registered,
    plate_rows,
    plates_under_enumeration,
    refuse_setup,
    registered,
    takes_any_length,
    unchecking,
)
from .._core._dense import require_real
from .._errors import (
    DtypeError,
    MissingNameError,
    ShapeError,
    SupportError,
    UnsupportedDistributionError,
    describe,
    near,
)
from .._networks._substitution import Substitution
from ..random import Key, name_key
from ..random._mode import KeyedRandom, draw
from ..random._sample import draw_distribution
from ._sites import feasible, is_exempt
from ._validation import require_valid_arguments, require_valid_value

# Which key draws the rows of plates, if it is not the run's.
_ROWS_KEY: ContextVar[Key | None] = ContextVar("purepyro_rows_key", default=None)


@contextmanager
def rows_drawn_by(key: Key) -> Iterator[None]:
    """A block whose runs, whatever their keys, take the same rows of subsampled plates."""
    token = _ROWS_KEY.set(key)
    try:
        yield
    finally:
        _ROWS_KEY.reset(token)


class Answers:
    """Answers for one run, and the names that were asked for.

    Args:
        params: Unconstrained values of parameters.
        key: Each draw depends on it and on the site's name.
        values: Values of latent sites, in place of draws.
        substitution: Takes note of what stands for the ``torch.nn`` parameters that a plain Pyro
            model registers.
        collect: Whether a parameter that is not in ``params`` is added, at its initial value.
        draws: Whether sites without a value are drawn; if not, they are an error.
        on_network: Told of each network that a ``pyro.module`` statement registers, with the
            prefix that its names get.
        shared: The constraints of parameters that runs which belong together know of.
        find_constraint: Looks for one that none of them has said yet.
        elsewhere: Starting values of parameters that another model starts.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        key: Key,
        values: Mapping[str, Tensor],
        substitution: Substitution,
        *,
        collect: bool = False,
        draws: bool = True,
        on_network: Callable[[nn.Module, str], None],
        shared: dict[str, Constraint],
        find_constraint: Callable[[str], Constraint | None],
        elsewhere: Mapping[str, Tensor],
    ) -> None:
        self.params = dict(params)
        self.values = values
        # Whether to check distributions where torch cannot; the run knows once it has begun.
        self.validates = False
        self.constraints: dict[str, Constraint] = {}
        self.params_read: set[str] = set()
        self.values_read: set[str] = set()
        self._key = key
        self._substitution = substitution
        self._on_network = on_network
        self._shared = shared
        self._find_constraint = find_constraint
        self._elsewhere = elsewhere
        self._collect = collect
        self._draws = draws

    def answer(self, msg: Msg) -> bool:
        """Serve a message that no handler served; ``False`` if it is none of ours."""
        refuse_setup()
        if msg["type"] == "sample":
            blind = is_mapped()  # torch's own checks are off
            fn = msg["fn"] if blind and self.validates and not is_exempt(msg) else None
            require_valid_arguments(str(msg["name"]), fn)
            if blind or is_tracing():
                msg["fn"] = unchecking(msg["fn"])
            if msg["value"] is None:
                msg["value"] = self._sample(msg)
            elif msg["is_observed"]:
                with self._aside():
                    _check_observed(msg)
            if msg["is_observed"] or msg["name"] in self.values:
                require_valid_value(str(msg["name"]), fn, message_value(msg))
        elif msg["type"] == "param" and msg["value"] is None:
            msg["value"] = self._param(msg)
        else:
            return False
        msg["done"] = True
        return True

    def _aside(self) -> AbstractContextManager[object]:
        """A block for checks, which need no mode unless it replaces something."""
        return nullcontext() if self._substitution else as_they_are()

    def _sample(self, msg: Msg) -> Tensor:
        name, fn = str(msg["name"]), message_distribution(msg)
        if is_empty_plate(fn):
            raise ShapeError(
                f"The plate {name!r} has size 0, for which a plate's scale is not defined. Pass "
                "at least one row, or leave the plate out where there is none."
            )
        if is_full_plate(fn) and name not in self.values:
            indices: Tensor = fn()
            return indices
        if name in self.values:
            self.values_read.add(name)
            if is_subsample(fn):
                return _checked_rows(name, plate_rows(fn), self.values[name])
            with self._aside():
                return _checked_value(name, fn, self.values[name])
        if not self._draws:
            raise MissingNameError(
                f"The values have none for the site {name!r}, so the log density is not defined. "
                f"{near(name, self.values)} Give a value for every latent site, as "
                "trace(...)[1].latents does."
            )
        rows_key = _ROWS_KEY.get() if is_subsample(fn) else None
        key = name_key(self._key if rows_key is None else rows_key, name)
        if msg["args"] or msg["kwargs"] or not hasattr(fn, "sample"):
            return draw(key, partial(fn, *msg["args"], **msg["kwargs"]))
        try:
            return draw_distribution(key, fn)
        except UnsupportedDistributionError as error:
            if self._collect and is_improper(fn):  # a first look goes on from any value
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
            _check_like(name, unconstrained, init, constraint)
        if alias is None:
            self.params_read.add(name)
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
        found = self._find_constraint(name)
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
            if not self._collect:
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
            with KeyedRandom(name_key(self._key, name)):
                value = init()
        if isinstance(value, nn.Parameter):
            value = value.detach()
        if not isinstance(value, Tensor):
            raise DtypeError(
                f"The initial value of the parameter {name!r} is {describe(value)}, which is no "
                "Tensor. Write for example torch.tensor(1.0)."
            )
        _check_initial(name, value, constraint)
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


@quiet
def _check_initial(name: str, value: Tensor, constraint: Constraint) -> None:
    seen = plain(value.detach())
    if seen is None:
        return
    if not bool(torch.isfinite(seen).all()):
        raise SupportError(
            f"The initial value of the parameter {name!r} ({describe(value)}) is not finite, so "
            "every gradient would be lost from the first step. Start from finite numbers."
        )
    if not bool(constraint.check(seen).all()):
        raise SupportError(
            f"The initial value of the parameter {name!r} ({describe(value)}, from {_span(seen)}) "
            f"does not satisfy its constraint {constraint}. Start from a value inside it."
        )


def _check_like(name: str, given: Tensor, init: Tensor, constraint: Constraint) -> None:
    shape = torch.Size(transform_to(constraint).inverse_shape(init.shape))
    check_param(name, given, shape, init.dtype)


def check_param(name: str, given: object, shape: torch.Size, dtype: torch.dtype) -> None:
    """Refuse an unconstrained parameter of another shape or dtype than declared."""
    if not isinstance(given, Tensor):
        raise DtypeError(
            f"The parameter {name!r} is {describe(given)}, which is no Tensor. "
            f"Write torch.tensor({describe(given)})."
        )
    require_real(given, f"parameter {name!r}")
    if given.dtype != dtype:
        short = str(dtype).removeprefix("torch.")
        raise DtypeError(
            f"The parameter {name!r} is {describe(given)}, but the model declares {short}. A mix "
            f"of dtypes fails later, or is silently slow. Write params[{name!r}].to({dtype}), or "
            "change the model by to(model, dtype)."
        )
    if given.shape != shape:
        raise ShapeError(
            f"The parameter {name!r} has the shape {list(given.shape)}, but the model declares "
            f"{list(shape)} (unconstrained). Broadcasting it would change the model. Start from "
            "init(model, key); for a stack of parameters, vmap over it."
        )


def _check_observed(msg: Msg) -> None:
    name, fn, value = msg["name"], msg["fn"], msg["value"]
    if is_exempt(msg) or not hasattr(fn, "batch_shape"):
        return
    if not isinstance(value, Tensor):
        raise DtypeError(
            f"The observed value of the site {name!r} is {describe(value)}, which is no Tensor. "
            "Write torch.as_tensor(value)."
        )
    require_real(value, f"observed value of the site {name!r}")
    free = {f.dim for f in msg["cond_indep_stack"] if f.dim is not None and f.size == -1}
    _check_shape(name, fn, value, "observed value", free)


def _check_shape(
    name: object, fn: object, value: Tensor, what: str, free: Container[int] = ()
) -> None:
    """Refuse a value of another shape than its site; plates without a size leave dims ``free``."""
    batch, event = tuple(getattr(fn, "batch_shape", ())), tuple(getattr(fn, "event_shape", ()))
    if tuple(value.shape) == batch + event:
        return
    if takes_any_length(fn) and value.ndim >= len(event) > 0:
        event = (value.shape[-len(event)], *event[1:])
    if (
        tuple(value.shape) != batch + event
        and not (free and _fits_free(tuple(value.shape), batch, event, free))
        and not _fits_plates(tuple(value.shape), batch, event)
    ):
        raise ShapeError(
            f"The {what} of the site {name!r} is {describe(value)}, but its distribution "
            f"{type(fn).__name__} has batch shape {list(batch)} and event shape {list(event)}. "
            "Broadcasting would count data several times, so the shape must be exactly "
            f"{list(batch + event)}. Reshape the value (squeeze, unsqueeze), or the distribution "
            "(expand, to_event, or a plate around it)."
        )


def _fits_free(
    shape: tuple[int, ...], batch: tuple[int, ...], event: tuple[int, ...], free: Container[int]
) -> bool:
    """Whether shapes differ only in dimensions of plates without a size, of which batch has one."""
    if shape[len(shape) - len(event) :] != event:
        return False
    rows = shape[: len(shape) - len(event)]
    if len(batch) > len(rows):
        return False
    padded = (1,) * (len(rows) - len(batch)) + batch
    return all(
        size == own or (own == 1 and i - len(rows) in free)
        for i, (size, own) in enumerate(zip(rows, padded, strict=True))
    )


def _fits_plates(shape: tuple[int, ...], batch: tuple[int, ...], event: tuple[int, ...]) -> bool:
    """Whether shapes differ only left of the plates, where enumerated sites add dimensions."""
    plates = plates_under_enumeration()
    if plates is None or shape[len(shape) - len(event) :] != event:
        return False
    rows = shape[: len(shape) - len(event)]
    inner = rows[max(0, len(rows) - plates) :]
    return _stripped(inner) == _stripped(batch[max(0, len(batch) - plates) :])


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones on its left."""
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _checked_value(name: str, fn: object, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise DtypeError(
            f"The value of the site {name!r} is {describe(value)}, which is no Tensor. "
            "Write torch.as_tensor(value)."
        )
    require_real(value, f"value of the site {name!r}")
    if not hasattr(fn, "batch_shape"):
        return value
    _check_shape(name, fn, value, "value")
    support = getattr(fn, "support", None) if is_validation_enabled() else None
    seen = plain(value)
    if isinstance(support, Constraint) and seen is not None:
        holds = plain(support.check(seen))
        if holds is not None and not bool(holds.all()):
            raise SupportError(
                f"The value of the site {name!r} ({describe(value)}, from {_span(seen)}) lies "
                f"outside the support {support} of its {type(fn).__name__}, where the density is "
                "zero. Values are constrained ones: give a value inside the support."
            )
    return value


def _checked_rows(name: str, count: int | None, rows: object) -> Tensor:
    """The rows that a plate takes, as it was told; ``count`` is how many, if it says so itself."""
    if not isinstance(rows, Tensor) or rows.is_floating_point() or rows.is_complex():
        raise DtypeError(
            f"The value of the plate {name!r} is {describe(rows)}, which holds no indices of rows. "
            "Give whole numbers, torch.tensor([...]), one for each row."
        )
    if rows.ndim != 1 or (count is not None and len(rows) != count):
        wanted = "one dimension" if count is None else f"{count} of them"
        raise ShapeError(
            f"The rows of the plate {name!r} are {describe(rows)}, where the plate takes {wanted}. "
            "A model takes the rows that its guide drew: give the plate the same subsample_size in "
            "both, or leave it out in the model."
        )
    return rows


def _span(value: Tensor) -> str:
    if not value.numel():
        return "no numbers"
    return f"{value.min().item():.4g} to {value.max().item():.4g}"
