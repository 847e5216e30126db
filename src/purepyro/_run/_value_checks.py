"""Checks of the values that a run is given: parameters, observations, values of sites."""

from __future__ import annotations

from collections.abc import Container

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint

from .._compat._function_modes import quiet
from .._compat._functorch import plain
from .._compat._pyro import Msg, plates_under_enumeration, takes_any_length
from .._core._dense import require_real
from .._errors import DtypeError, ShapeError, SupportError, describe
from ._sites import is_exempt


@quiet
def check_initial(name: str, value: Tensor, constraint: Constraint) -> None:
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


def check_like(name: str, given: Tensor, init: Tensor, constraint: Constraint) -> None:
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


def check_observed(msg: Msg) -> None:
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


def checked_value(name: str, fn: object, value: object) -> Tensor:
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


def checked_rows(name: str, count: int | None, rows: object) -> Tensor:
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
