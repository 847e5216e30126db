"""What distributions of torch and Pyro keep private: masks, validation, and what they are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, cast

import pyro.distributions.torch as pyro_torch
import torch
from pyro.distributions import Delta, Unit
from pyro.distributions.hmm import HiddenMarkovModel, IndependentHMM
from pyro.distributions.torch_distribution import (
    ExpandedDistribution,
    MaskedDistribution,
    TorchDistributionMixin,
)
from pyro.distributions.util import scale_and_mask as _scale_and_mask
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform, constraints
from torch.distributions import kl_divergence as _kl_divergence
from torch.distributions.constraints import Constraint

from ._private import held, private, private_or
from ._transforms import is_mapped, is_tracing, may_be_blind
from ._turns import unvalidated
from ._vmappable_densities import PURE

IS_ALL_TRUE: Callable[[Tensor], Tensor] = private("torch:_is_all_true", "checks of values")
"""How the validation of distributions asks whether all is well; it may be asked under vmap."""
_SYMMETRIC: Any = type(constraints.symmetric)  # and those built on it, which branch on it


def is_delta(fn: object) -> bool:
    """Whether ``fn`` is a ``Delta``, behind whatever wrappers."""
    inner: object | None = fn
    while inner is not None:
        if isinstance(inner, Delta):
            return True
        inner = getattr(inner, "base_dist", None)
    return False


def is_factor(fn: object) -> bool:
    """Whether ``fn`` is what ``pyro.factor`` makes of its argument."""
    return isinstance(fn, Unit)


def says_rsample(fn: object) -> bool:
    """Whether a factor was given ``has_rsample``."""
    return "has_rsample" in vars(fn)


def takes_any_length(fn: object) -> bool:
    """Whether a distribution is of sequences of no certain length, of whose shape it says 1."""
    if isinstance(fn, IndependentHMM | ExpandedDistribution | MaskedDistribution):
        return takes_any_length(fn.base_dist)
    if isinstance(fn, HiddenMarkovModel):
        return fn.duration is None
    # Pyro's contributions are no part of what every program loads.
    return type(fn).__name__ == "MissingDataDiscreteHMM"


def keeps_cache(transform: Transform) -> bool:
    """Whether a transform keeps what it computed last."""
    return bool(getattr(transform, "_cache_size", 0))


# --- Masks ------------------------------------------------------------------------------------


def own_mask(fn: object) -> Tensor | bool | None:
    """The mask that a distribution itself has, by ``fn.mask(...)``."""
    if not isinstance(fn, MaskedDistribution):
        return None
    mask: Tensor | bool | None = held(fn, "_mask", "masked distributions")
    return mask


def batch_mask(fn: object) -> Tensor | bool | None:
    """The mask that a distribution brings along, by element of its batch."""
    mask: Tensor | bool | None = None
    while isinstance(fn, MaskedDistribution | ExpandedDistribution):
        mask = both_masks(mask, own_mask(fn))
        fn = fn.base_dist
    return mask


def _inner_mask(fn: object) -> object:
    """The outermost mask, behind wrappers too."""
    inner: object | None = fn
    while inner is not None:
        if isinstance(inner, MaskedDistribution):
            return own_mask(inner)
        inner = getattr(inner, "base_dist", None)
    return None


def both_masks(*masks: Tensor | bool | None) -> Tensor | bool | None:
    """Where all masks hold, without idle operations; ``None`` stands for everywhere."""
    result: Tensor | bool | None = None
    for mask in masks:
        if result is None or result is True or mask is False:
            result = mask if mask is not None else result
        elif mask is not None and mask is not True and mask is not result:
            result = False if result is False else result & mask
    return result


# --- Densities --------------------------------------------------------------------------------


def log_prob(fn: TorchDistributionMixin, value: Tensor) -> Tensor:
    """``fn.log_prob(value)``; validated, except while a graph is traced or under ``vmap``."""
    if not may_be_blind() or not (is_tracing() or is_mapped()):
        return fn.log_prob(value)
    with unvalidated():
        return fn.log_prob(value)


def scale_and_mask(log_prob: Tensor, scale: Tensor | float, mask: Tensor | bool | None) -> Tensor:
    """``scale * log_prob`` where ``mask`` holds, else zero, without idle operations."""
    result: Tensor = _scale_and_mask(log_prob, scale, mask)
    return result


def kl_divergence(q: TorchDistributionMixin, p: TorchDistributionMixin) -> Tensor | None:
    """The KL divergence by element of the batch; ``None`` if no formula is known.

    Pyro's formula for a ``Delta`` leaves out its ``log_density``, and the one for two distributions
    with masks of their own is for equal masks, so there is none for these.
    """
    if is_delta(q) or _inner_mask(q) is not _inner_mask(p):
        return None
    try:
        divergence: Tensor | float = _kl_divergence(cast("Any", q), cast("Any", p))
    except NotImplementedError:
        return None
    return torch.as_tensor(divergence)


# --- Validation -------------------------------------------------------------------------------

_VALIDATES = "_validate_args"


def unchecking(fn: object) -> object:
    """A distribution like ``fn`` that looks at no values, whatever it was told when it was made.

    One that was expanded while validation was on insists on it, and a graph has no values; nor does
    ``vmap`` have any that are one for all runs.
    """
    if not isinstance(fn, TorchDistribution):
        return fn
    parts = {name: unchecking(part) for name, part in vars(fn).items()}
    same = all(part is vars(fn)[name] for name, part in parts.items())
    pure = PURE.get(type(fn))
    if same and pure is None and not vars(fn).get(_VALIDATES):
        return fn
    free = copy(fn)
    vars(free).update(parts, **{_VALIDATES: False})
    if pure is not None:
        free.__class__ = pure
    return free


def is_off(fn: TorchDistribution) -> bool:
    """Whether a distribution was told not to validate."""
    return vars(fn).get(_VALIDATES) is False


def holds_for_all(constraint: Constraint, value: Tensor) -> bool:
    """Whether a constraint holds for all elements, and in all runs under ``vmap``.

    True where it cannot be said, as ``vmap`` has no rule for what the constraint does.
    """
    try:
        if isinstance(constraint, _SYMMETRIC):
            valid = _symmetric(constraint, value)
        else:
            valid = constraint.check(value)
        return bool(IS_ALL_TRUE(valid))
    except RuntimeError:
        return True


def _symmetric(constraint: Constraint, value: Tensor) -> Tensor:
    near = (value - value.mT).abs() <= 1e-6 + 1e-5 * value.mT.abs()
    valid: Tensor = near.all(-1).all(-1)
    if isinstance(constraint, type(constraints.positive_definite)):
        valid = valid & torch.linalg.cholesky_ex(value).info.eq(0)
    elif isinstance(constraint, type(constraints.positive_semidefinite)):
        valid = valid & torch.linalg.eigvalsh(value).ge(0).all(-1)
    return valid


# --- Construction -----------------------------------------------------------------------------


def on_construction(
    construct: Callable[[type, Sequence[object], Mapping[str, object]], object],
) -> None:
    """Let ``construct`` make the distributions that Pyro has from torch, or return ``None``."""

    def made(kind: type, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        return construct(kind, args, kwargs) if kind in _OF_TORCH else None

    _CONSTRUCTORS.append(made)


def constructed(kind: type, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """A distribution, made as Pyro does where nobody has a say in it."""
    return type.__call__(kind, *args, **kwargs)


_CONSTRUCTORS: list[object] = private_or(
    "pyro.distributions.distribution:COERCIONS", [], "runs take somewhat longer"
)
_OF_TORCH: frozenset[object] = frozenset(
    kind
    for kind in vars(pyro_torch).values()
    if getattr(kind, "__module__", None) == pyro_torch.__name__
)
