"""Priors for the parameters of a network: rules ready-made, and what belongs to which."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import TypeAlias

import attrs
import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution as TorchDistribution

from .._declare._parameter_fields import fitted_prior
from .._declare._tree import parameters_of
from .._errors import DeclarationError, UnknownNameError, describe, near

PriorRule: TypeAlias = Callable[[str, Tensor], TorchDistributionMixin | None]
"""A prior by name and value of the parameter; ``None`` leaves the parameter learnable."""

PriorChoice: TypeAlias = TorchDistributionMixin | PriorRule | None
"""The prior of one or more parameters, or none."""

Priors: TypeAlias = PriorChoice | Mapping[str | type[nn.Module], PriorChoice]
"""What ``lift`` takes as its prior."""

# The keys of a Mapping are invariant, so a dict that has one kind of them needs a type of its own.
PriorsByKind: TypeAlias = Mapping[str, PriorChoice] | Mapping[type[nn.Module], PriorChoice]


def fan_in_normal(scale: float = 1.0, *, bias: float = 1.0) -> PriorRule:
    """Normal priors for :func:`lift` whose spread shrinks with the number of inputs of a unit.

    A parameter of two or more dimensions gets ``Normal(0, scale / sqrt(fan_in))``, so the sum over
    a unit's inputs has the same spread in layers of all widths. The fan-in is that of ``torch.nn.
    init``: the second dimension times the size of the kernel. One of fewer dimensions (a bias, the
    weight of a normalisation) gets ``Normal(0, bias)``.

    Args:
        scale: The standard deviation of a unit's sum over inputs of size 1.
        bias: The standard deviation for parameters of fewer than two dimensions.

    Returns:
        A rule for ``lift(net, prior=...)``, or for a value in its mapping.

    Example:
        >>> import torch
        >>> from purepyro import fan_in_normal
        >>> fan_in_normal()("0.weight", torch.zeros(3, 100)).base_dist.scale[0, 0]
        tensor(0.1000)
    """
    return partial(_fan_in, dist.Normal, _positive("scale", scale), _positive("bias", bias))


def fan_in_laplace(scale: float = 1.0, *, bias: float = 1.0) -> PriorRule:
    """:func:`fan_in_normal` with Laplace priors of the same standard deviations.

    They hold most weights closer to zero and let a few be large.

    Args:
        scale: The standard deviation of a unit's sum over inputs of size 1.
        bias: The standard deviation for parameters of fewer than two dimensions.

    Example:
        >>> import torch
        >>> from purepyro import fan_in_laplace
        >>> fan_in_laplace()("0.weight", torch.zeros(3, 100)).base_dist.stddev[0, 0]
        tensor(0.1000)
    """
    root = math.sqrt(0.5)
    spread, of_bias = _positive("scale", scale), _positive("bias", bias)
    return partial(_fan_in, dist.Laplace, spread * root, of_bias * root)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise DeclarationError(
            f"The prior got {name}={value}. It is a standard deviation, so it must be positive "
            f"and finite. Write for example {name}=1.0."
        )
    return value


def _fan_in(
    family: Callable[[Tensor, float], TorchDistributionMixin],
    scale: float,
    bias: float,
    name: str,
    value: Tensor,
) -> TorchDistributionMixin:
    fan_in = math.prod(value.shape[1:])
    spread = scale / math.sqrt(fan_in) if value.dim() > 1 and fan_in else bias
    prior = family(value.new_zeros(value.shape), spread)
    return prior.to_event(value.dim())


@attrs.frozen
class Pattern:
    """A key of a mapping of priors: a name, a glob over names, or a type of layers."""

    key: str | type[nn.Module]
    prior: object
    matches: frozenset[str]
    rank: int

    def __str__(self) -> str:
        return repr(self.key) if isinstance(self.key, str) else self.key.__name__


def priors_of(
    net: nn.Module, prior: object, *, frozen: Container[str] = ()
) -> dict[str, TorchDistributionMixin]:
    """The prior of each parameter that has one, by name, of the parameter's shape and dtype."""
    own = {name: parameter.detach() for name, parameter in parameters_of(net)}
    if isinstance(prior, Mapping):
        choices = dict(_choices(net, own, prior))
    else:
        choices = {name: prior for name in own if name not in frozen}
        if isinstance(prior, TorchDistribution) and not own:
            raise DeclarationError(
                f"lift was given a prior for a {type(net).__name__} without learnable parameters, "
                "so it would do nothing. Leave it out, or let parameters learn by "
                "requires_grad_(True)."
            )
    fitted = {name: _fitted(name, own[name], choice) for name, choice in choices.items()}
    return {name: prior for name, prior in fitted.items() if prior is not None}


def matching(net: nn.Module, patterns: Iterable[str], what: str) -> dict[str, str]:
    """The parameters that globs match, each with the first one that does.

    Raises:
        UnknownNameError: if a glob matches nothing.
    """
    names = _names(net)
    found: dict[str, str] = {}
    for pattern in patterns:
        matches = _globbed(pattern, names)
        if not matches:
            raise UnknownNameError(_unmatched_message(what, pattern, names))
        for name in sorted(matches):
            found.setdefault(name, pattern)
    return found


def _choices(
    net: nn.Module, own: Mapping[str, Tensor], prior: Mapping[object, object]
) -> Iterator[tuple[str, object]]:
    """The choice for each parameter that a pattern matches; the most specific pattern has it."""
    patterns = [_pattern(net, own, key, choice) for key, choice in prior.items()]
    for name in own:
        found = [pattern for pattern in patterns if name in pattern.matches]
        best = [p for p in found if p.rank == max(other.rank for other in found)]
        for other in best[1:]:
            if other.prior is not best[0].prior:
                raise DeclarationError(
                    f"The patterns {best[0]} and {other} of the prior both match the parameter "
                    f"{name!r} and give it different priors, so which one is meant is open. "
                    f"Narrow one of them, or name the parameter: {{{name!r}: ...}}; a full name "
                    "goes before a glob, a glob before a type."
                )
        if best:
            yield name, best[0].prior


def _pattern(net: nn.Module, own: Mapping[str, Tensor], key: object, choice: object) -> Pattern:
    names = _names(net)
    if isinstance(key, type) and issubclass(key, nn.Module):
        matches = {
            names[f"{path}.{name}" if path else name]
            for path, layer in net.named_modules(remove_duplicate=False)
            if isinstance(layer, key)
            for name, _ in layer.named_parameters(recurse=False)
        }
        pattern, rank = Pattern(key, choice, frozenset(matches), 0), 0
    elif isinstance(key, str):
        rank = 2 if key in names else 1
        pattern = Pattern(key, choice, _globbed(key, names), rank)
    else:
        raise DeclarationError(
            f"The prior has the key {describe(key)}. A key is a glob over parameter names such as "
            "'0.*', or a type of layers such as torch.nn.Linear."
        )
    if not pattern.matches:
        raise UnknownNameError(_unmatched(net, key, names))
    if not pattern.matches & own.keys():
        raise DeclarationError(
            f"The pattern {pattern} of the prior matches only parameters that are frozen by "
            "requires_grad=False, which stay as they are. Call requires_grad_(True) on them "
            "first, or drop the pattern."
        )
    return pattern


def _unmatched(net: nn.Module, key: str | type[nn.Module], names: Mapping[str, str]) -> str:
    if isinstance(key, str):
        return _unmatched_message("The prior", key, names)
    types = {type(layer).__name__ for layer in net.modules() if len(list(layer.parameters(False)))}
    return (
        f"The prior has the type {key.__name__}, but no layer of that type has parameters of its "
        f"own, so it would do nothing. {near(key.__name__, types)}"
    )


def _unmatched_message(what: str, pattern: str, names: Iterable[str]) -> str:
    return (
        f"{what} has the pattern {pattern!r}, which matches no parameter, so it would do nothing. "
        f"{near(pattern, names)} Patterns are globs over whole names, such as '0.*'."
    )


def _names(net: nn.Module) -> dict[str, str]:
    """All names of parameters; those of a tied one lead to the first, which it goes by."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in net.named_parameters(remove_duplicate=False)
    }


def _globbed(pattern: str, names: Mapping[str, str]) -> frozenset[str]:
    if pattern in names:
        return frozenset({names[pattern]})
    return frozenset(first for name, first in names.items() if fnmatchcase(name, pattern))


def _fitted(name: str, value: Tensor, choice: object) -> TorchDistributionMixin | None:
    """The prior of one parameter, of its shape and dtype."""
    prior = choice
    if not isinstance(prior, TorchDistribution) and callable(prior):
        prior = prior(name, value.clone())
    return None if prior is None else fitted_prior(name, prior, value)
