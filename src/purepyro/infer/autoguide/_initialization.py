"""Where a guide starts: functions of a latent site and a key."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import TypeAlias, overload

import attrs
import torch
from pyro.distributions.torch_distribution import (
    ExpandedDistribution,
    MaskedDistribution,
    TorchDistributionMixin,
)
from torch import Tensor
from torch.distributions import Independent, biject_to
from torch.distributions.constraints import Constraint

from ..._compat._functorch import plain
from ..._core._types import Values
from ..._errors import MissingNameError, UnsupportedDistributionError, near
from ...random import Key, uniform
from ...random._sample import draw_distribution


@attrs.frozen
class InitSite:
    """A latent site that needs a value to start from.

    Attributes:
        name: The site's name.
        fn: Its prior, given the starting values of the sites before it.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import constrain, init, random
        >>> from purepyro.infer import AutoDelta, InitSite
        >>> def at_two(site: InitSite, key: random.Key) -> torch.Tensor:
        ...     return torch.full(site.shape, 2.0)
        >>> guide = AutoDelta(lambda: pyro.sample("z", dist.Gamma(2.0, 1.0)), init_loc_fn=at_two)
        >>> constrain(guide, init(guide, random.key(0)))
        {'locs.z': tensor(2.)}
    """

    name: str
    fn: TorchDistributionMixin

    @property
    def support(self) -> Constraint:
        """The set its values lie in."""
        support: Constraint = self.fn.support
        return support

    @property
    def shape(self) -> torch.Size:
        """The shape of its values."""
        return torch.Size((*self.fn.batch_shape, *self.fn.event_shape))


Initializer: TypeAlias = Callable[[InitSite, Key], Tensor]


def init_to_feasible(site: InitSite, key: Key) -> Tensor:
    """The point of the support that is zero in unconstrained space; the prior is not asked.

    Args:
        site: The latent site.
        key: Unused.

    Source: ``pyro.infer.autoguide.initialization``, as all of its kind here.

    Example:
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_feasible
        >>> init_to_feasible(InitSite("p", dist.Beta(2.0, 5.0)), random.key(0))
        tensor(0.5000)
    """
    return _at(site, torch.zeros_like(_unconstrained(site, key)))


def init_to_sample(site: InitSite, key: Key) -> Tensor:
    """A draw from the prior.

    Args:
        site: The latent site.
        key: The draw depends on it.

    Example:
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_sample
        >>> init_to_sample(InitSite("z", dist.Normal(0.0, 1.0).expand([2])), random.key(0)).shape
        torch.Size([2])
    """
    return draw_distribution(key, site.fn).detach()


@overload
def init_to_uniform(site: InitSite, key: Key, *, radius: float = ...) -> Tensor: ...
@overload
def init_to_uniform(*, radius: float = ...) -> Initializer: ...
def init_to_uniform(
    site: InitSite | None = None, key: Key | None = None, *, radius: float = 2.0
) -> Tensor | Initializer:
    """A point that is uniform in ``(-radius, radius)`` in unconstrained space.

    Args:
        site: The latent site; without it, an initialiser with this ``radius`` is returned.
        key: The draw depends on it.
        radius: How far from zero.

    Example:
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_uniform
        >>> near_zero = init_to_uniform(radius=0.1)
        >>> bool(near_zero(InitSite("z", dist.Normal(5.0, 1.0)), random.key(0)).abs() < 0.1)
        True
    """
    if site is None or key is None:
        return partial(init_to_uniform, radius=radius)
    like = _unconstrained(site, key)
    return _at(site, uniform(key, *like.shape, low=-radius, high=radius, dtype=like.dtype))


@overload
def init_to_median(
    site: InitSite, key: Key, *, num_samples: int = ..., fallback: Initializer | None = ...
) -> Tensor: ...
@overload
def init_to_median(
    *, num_samples: int = ..., fallback: Initializer | None = ...
) -> Initializer: ...
def init_to_median(
    site: InitSite | None = None,
    key: Key | None = None,
    *,
    num_samples: int = 15,
    fallback: Initializer | None = init_to_feasible,
) -> Tensor | Initializer:
    """The median of draws from the prior, number by number.

    Vectors and matrices, which have no median, start from ``init_to_feasible``; those made of
    independent elements (by ``to_event``) have one.

    Args:
        site: The latent site; without it, an initialiser with these settings is returned.
        key: The draws depend on it.
        num_samples: How many draws.
        fallback: Where the median is not finite, or not in the support.

    Raises:
        MissingNameError: if there is no median and ``fallback`` is None.

    Example:
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_median
        >>> init = init_to_median(num_samples=1001)
        >>> init(InitSite("z", dist.Normal(3.0, 1.0)), random.key(0)).round()
        tensor(3.)
    """
    if site is None or key is None:
        return partial(init_to_median, num_samples=num_samples, fallback=fallback)
    if _is_multivariate(site.fn):
        return init_to_feasible(site, key)
    try:
        draws = draw_distribution(key, site.fn, (num_samples,)).detach()
    except UnsupportedDistributionError:
        draws = torch.full((1, *site.shape), torch.nan)
    return _or_fallback(site, key, draws.median(0).values, fallback)


@overload
def init_to_mean(site: InitSite, key: Key, *, fallback: Initializer | None = ...) -> Tensor: ...
@overload
def init_to_mean(*, fallback: Initializer | None = ...) -> Initializer: ...
def init_to_mean(
    site: InitSite | None = None,
    key: Key | None = None,
    *,
    fallback: Initializer | None = init_to_median,
) -> Tensor | Initializer:
    """The mean of the prior.

    Args:
        site: The latent site; without it, an initialiser with these settings is returned.
        key: Only a fallback draws from it.
        fallback: Where the mean is unknown, not finite (a Cauchy's), or not in the support.

    Raises:
        MissingNameError: if there is no mean and ``fallback`` is None.

    Example:
        >>> import pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_mean
        >>> init_to_mean(InitSite("z", dist.Gamma(6.0, 2.0)), random.key(0))
        tensor(3.)
    """
    if site is None or key is None:
        return partial(init_to_mean, fallback=fallback)
    try:
        mean: Tensor = site.fn.mean
    except NotImplementedError:
        mean = torch.full(site.shape, torch.nan)
    return _or_fallback(site, key, mean.detach(), fallback)


@overload
def init_to_value(
    site: InitSite, key: Key, *, values: Values, fallback: Initializer | None = ...
) -> Tensor: ...
@overload
def init_to_value(*, values: Values, fallback: Initializer | None = ...) -> Initializer: ...
def init_to_value(
    site: InitSite | None = None,
    key: Key | None = None,
    *,
    values: Values = MappingProxyType({}),
    fallback: Initializer | None = init_to_uniform,
) -> Tensor | Initializer:
    """Given values, constrained ones, by site name.

    Args:
        site: The latent site; without it, an initialiser with these settings is returned.
        key: Only a fallback draws from it.
        values: The values.
        fallback: For the sites that have none.

    Raises:
        MissingNameError: if a site has no value and ``fallback`` is None.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import InitSite, init_to_value
        >>> init = init_to_value(values={"z": torch.tensor(7.0)})
        >>> init(InitSite("z", dist.Normal(3.0, 1.0)), random.key(0))
        tensor(7.)
    """
    if site is None or key is None:
        return partial(init_to_value, values=values, fallback=fallback)
    if site.name in values:
        return values[site.name]
    if fallback is None:
        raise MissingNameError(
            f"init_to_value has no value for the latent site {site.name!r}, and no fallback. "
            f"{near(site.name, values)} Give it one, or a fallback such as init_to_uniform."
        )
    return fallback(site, key)


def values_given(init_loc_fn: Initializer) -> dict[str, Tensor]:
    """The values that an initialiser, or a fallback of it, has for sites by name."""
    values: dict[str, Tensor] = {}
    each: object = init_loc_fn
    while isinstance(each, partial):
        if each.func is init_to_value:
            values = {**each.keywords["values"], **values}
        each = each.keywords.get("fallback")
    return values


def _is_multivariate(fn: object) -> bool:
    """Whether the elements of an event belong together, so that they have no medians."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return any(size > 1 for size in getattr(fn, "event_shape", ()))


def _unconstrained(site: InitSite, key: Key) -> Tensor:
    """Some tensor of the shape, dtype and device of the site's unconstrained values."""
    try:
        value = draw_distribution(key, site.fn).detach()
    except UnsupportedDistributionError:  # an improper prior
        value = torch.empty(site.shape)
    return value.new_empty(biject_to(site.support).inverse_shape(value.shape))


def _at(site: InitSite, unconstrained: Tensor) -> Tensor:
    value: Tensor = biject_to(site.support)(unconstrained)
    return value


def _or_fallback(site: InitSite, key: Key, value: Tensor, fallback: Initializer | None) -> Tensor:
    """``value``, or the fallback where it is no value of the site.

    Under ``vmap``, where that cannot be seen, it is the value; a guide checks it again.
    """
    seen = plain(value)
    if seen is None or bool((torch.isfinite(seen).all() & site.support.check(seen).all()).all()):
        return value
    if fallback is None:
        raise MissingNameError(
            f"The prior of the latent site {site.name!r} ({type(site.fn).__name__}) has no mean or "
            "median inside its support to start from, and there is no fallback. Give a fallback "
            "such as init_to_feasible."
        )
    return fallback(site, key)
