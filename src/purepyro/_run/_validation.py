"""What torch checks of distributions, for runs under ``vmap``.

Torch's own checks branch on values (``if not valid.all()``), which some of them may not do there.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyro.distributions import NanMaskedMultivariateNormal, NanMaskedNormal
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.utils import lazy_property

from .._compat._pyro import holds_for_all, is_off
from .._errors import SupportError, describe


def require_valid_arguments(name: str, fn: object) -> None:
    """Refuse a distribution with parameters outside their constraints, in any of the runs."""
    if not isinstance(fn, Distribution) or is_off(fn):
        return
    for argument, constraint in _constraints_of(fn):
        value: object = getattr(fn, argument)
        if isinstance(value, Tensor) and not holds_for_all(constraint, value):
            raise SupportError(
                f"The site {name!r}: the parameter {argument} ({describe(value)}) of its "
                f"{type(fn).__name__} does not satisfy the constraint {constraint} in all runs "
                "under vmap, so its density is not defined. Map what it is computed from into the "
                "constraint, as by softplus; a loop, in place of vmap, shows the values."
            )
    for part in vars(fn).values():
        require_valid_arguments(name, part)


def require_valid_value(name: str, fn: object, value: Tensor) -> None:
    """Refuse a value outside the support of its distribution, in any of the runs."""
    while isinstance(fn, Independent | ExpandedDistribution | MaskedDistribution):
        fn = fn.base_dist  # which alone looks at values, if it was not told not to
    if not isinstance(fn, Distribution) or is_off(fn) or _takes_nan(fn):
        return
    try:
        support: object = fn.support
    except NotImplementedError:
        return
    if isinstance(support, Constraint) and not holds_for_all(support, value):
        raise SupportError(
            f"The value of the site {name!r} ({describe(value)}) lies outside the support "
            f"{support} of its {type(fn).__name__} in some of the runs under vmap, where the "
            "density is zero. Values are constrained ones: give values inside the support."
        )


def _constraints_of(fn: Distribution) -> Iterator[tuple[str, Constraint]]:
    """The parameters that torch checks, with their constraints."""
    try:
        known = fn.arg_constraints
    except NotImplementedError:
        return
    for argument, constraint in known.items():
        lazy = isinstance(getattr(type(fn), argument, None), lazy_property)
        if not constraints.is_dependent(constraint) and (argument in vars(fn) or not lazy):
            yield argument, constraint


def _takes_nan(fn: object) -> bool:
    """Whether missing numbers are a part of what the distribution is for."""
    if isinstance(fn, NanMaskedNormal | NanMaskedMultivariateNormal):
        return True
    inner: object = getattr(fn, "base_dist", None)
    return inner is not None and _takes_nan(inner)
