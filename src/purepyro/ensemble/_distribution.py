"""What a site's distribution says in closed form."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, OneHotCategorical

from .._errors import DtypeError, describe
from .._run._sites import Site


def moments(site: Site) -> tuple[Tensor, Tensor]:
    """The mean and the variance of a site's distribution, of the shape of its value.

    Raises:
        DtypeError: if the distribution has none in closed form.
    """
    try:
        mean, variance = site.fn.mean, site.fn.variance
    except NotImplementedError as error:
        raise DtypeError(
            f"The site {site.name!r} is {_kind(site.fn)}, which has no mean and variance in closed "
            "form. Draw from it instead, with Predictive and the members' params."
        ) from error
    if isinstance(_base(site.fn), Categorical):
        raise DtypeError(
            f"The site {site.name!r} is {_kind(site.fn)}: its values are names of classes, which "
            "have no mean. Write predict_proba."
        )
    return mean, variance


def class_probabilities(site: Site) -> Tensor:
    """The probabilities of the classes, along a last dimension.

    Raises:
        DtypeError: if the site has no classes.
    """
    fn = _base(site.fn)
    if isinstance(fn, Bernoulli):
        return torch.stack([1 - fn.probs, fn.probs], dim=-1)
    if isinstance(fn, Categorical | OneHotCategorical):
        return fn.probs
    raise DtypeError(
        f"The site {site.name!r} is {_kind(site.fn)}, which has no classes. Write predict for its "
        "mean and variance; classes have Categorical, OneHotCategorical and Bernoulli."
    )


def cdf(name: str, fn: TorchDistributionMixin, value: Tensor) -> Tensor:
    """The distribution function of each number of a value.

    Raises:
        DtypeError: if the distribution has none in closed form.
    """
    base = _base(fn)
    assert isinstance(base, Distribution)
    try:
        return base.cdf(value)
    except NotImplementedError as error:
        raise DtypeError(
            f"The site {name!r} is {_kind(fn)}, which has no distribution function in closed form. "
            "Draw from it instead, with Predictive and the members' params."
        ) from error


def _base(fn: object) -> object:
    """The distribution under wrappers such as ``Independent``."""
    while True:
        inner: object = getattr(fn, "base_dist", None)
        if inner is None or hasattr(fn, "transforms"):
            return fn
        fn = inner


def _kind(fn: object) -> str:
    return describe(type(_base(fn)).__name__).strip("'")
