"""Declarations in the place of a network's parameter: of its shape, dtype and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Distribution as TorchDistribution

from .._core._types import Prior
from .._errors import DeclarationError, ShapeError, describe, near
from ._conversion import Converter, converted
from ._fields import Field, PyroParam, PyroSample, call_with
from ._reads import OVERRIDES, join
from ._tree import Node, nets_of, nodes


def fitted(path: str, declaration: Field, parameter: nn.Parameter) -> Field:
    """A declaration like the one given, for the parameter of a network at ``path``.

    One number is expanded to the parameter's shape. A prior is drawn outside of plates, since a
    layer has one value.

    Raises:
        ShapeError: if it has another shape than the parameter.
        DeclarationError: if it is local to plates.
    """
    like = parameter.detach()
    if isinstance(declaration, PyroParam):
        given = declaration.init
        init = (
            _fitted_init(path, given, like)
            if isinstance(given, Tensor)
            else FittedInit(given, path, _empty(like))
        )
        made: Field = PyroParam(init, declaration.constraint, declaration.event_dim)
    elif isinstance(declaration, PyroSample):
        if declaration.local:
            raise DeclarationError(
                f"The prior of {path!r} has local=True, but {path!r} is a parameter of a torch.nn "
                f"module, which has one value, {describe(like)}, for all rows. Leave local out, or "
                "compute the rows' own values in forward."
            )
        given_prior = declaration.prior
        prior = (
            FittedPrior(given_prior, path, _empty(like))
            if not isinstance(given_prior, TorchDistribution) and callable(given_prior)
            else fitted_prior(path, given_prior, like)
        )
        made = PyroSample(prior, local=False, infer=declaration.infer)
    else:
        return declaration
    return made.fitting(like.shape)


@attrs.frozen
class FittedPrior:
    """A prior that is built from an instance, in the shape, dtype and device of ``like``."""

    prior: Callable[..., object]
    path: str
    like: Tensor

    def __call__(self, owner: object) -> Prior:
        """The prior on one instance."""
        prior = call_with(self.prior, owner)
        if isinstance(prior, Tensor):
            return _same_shape(f"The value of {self.path!r}", prior, self.like)
        return fitted_prior(self.path, prior, self.like)

    def moved(self, converter: Converter) -> FittedPrior:
        """The same in another dtype or on another device."""
        return attrs.evolve(self, like=converter.tensor(self.like))


@attrs.frozen
class FittedInit:
    """A starting value that is computed, in the shape, dtype and device of ``like``."""

    init: Callable[..., object] | None
    path: str
    like: Tensor

    def __call__(self, owner: object) -> Tensor:
        """The value for one instance."""
        value = call_with(self.init, owner)
        if not isinstance(value, Tensor):
            raise DeclarationError(
                f"The initial value of the parameter {self.path!r} is {describe(value)}, which is "
                "no Tensor. Return a Tensor, for example torch.tensor(1.0)."
            )
        return _fitted_init(self.path, value, self.like)

    def moved(self, converter: Converter) -> FittedInit:
        """The same in another dtype or on another device."""
        return attrs.evolve(self, like=converter.tensor(self.like))


def fitted_prior(name: str, prior: object, like: Tensor) -> TorchDistributionMixin:
    """A prior for the parameter ``name``, of its shape, dtype and device."""
    if not isinstance(prior, TorchDistributionMixin):
        family = type(prior).__name__
        advice = (
            f"It is torch's: write pyro.distributions.{family}(...), which Pyro can sample."
            if isinstance(prior, TorchDistribution)
            else "Give a distribution of pyro.distributions, None, or a callable (name, value) "
            "that returns one of these."
        )
        raise DeclarationError(
            f"The prior of the parameter {name!r} is {describe(prior)}, which is no distribution "
            f"of Pyro. {advice}"
        )
    return converted(_shaped(name, like, prior), like.dtype, like.device)


def _shaped(name: str, value: Tensor, prior: TorchDistributionMixin) -> TorchDistributionMixin:
    batch, event, shape = prior.batch_shape, prior.event_shape, value.shape
    rows = shape[: len(shape) - len(event)]
    fits = len(event) <= len(shape) and shape[len(rows) :] == event and batch in ((), rows)
    if not fits:
        raise ShapeError(
            f"The prior {type(prior).__name__} of the parameter {name!r} has batch shape "
            f"{list(batch)} and event shape {list(event)}, but the parameter is {describe(value)}. "
            "A prior of one number is expanded to the parameter; any other must have its shape, "
            f"{list(shape)}."
        )
    expanded = prior if batch == rows else prior.expand(rows)
    return expanded.to_event(len(rows))


def check_overrides(node: Node) -> None:
    """Refuse a Module whose own declarations do not fit its networks, after a change of these."""
    overrides: Mapping[str, Field] = node.__dict__.get(OVERRIDES, {})
    declared: Mapping[str, Field] = getattr(type(node), "__declarations__", {})
    parameters = dict(network_parameters(node))
    for name, declaration in overrides.items():
        if name in declared:
            continue
        if name not in parameters:
            raise DeclarationError(
                f"The {type(node).__name__} has a declaration for the parameter {name!r}, made by "
                "replace, lift or to, but its new network has no such parameter. "
                f"{near(name, parameters)} Give the new network to the constructor, and declare "
                "anew by replace(model, {path: declaration})."
            )
        shape = parameters[name].shape
        if declaration.shape not in (None, shape):
            raise ShapeError(
                f"The {type(node).__name__} has a declaration for the parameter {name!r} of the "
                f"shape {list(declaration.shape or ())}, but in its new network that has the shape "
                f"{list(shape)}. Declare it anew by replace(model, {{path: declaration}})."
            )


def one_parameter(one: Node | None, other: Node | None, path: str) -> bool:
    """Whether the parameter at ``path`` of two models is one, where models may be no Modules.

    In plain Pyro functions, and in methods of one Module, one name is one parameter. Two Modules
    have one in common if they hold the same submodule or network at the same path.
    """
    if one is None or other is None or one is other:
        return True
    owner = _owner(one, path)
    return owner is not None and owner == _owner(other, path)


def _owner(root: Node, path: str) -> tuple[int, int] | None:
    """What the parameter at ``path`` belongs to, and its declaration there, by identity."""
    for prefix, node in nodes(root):
        if not isinstance(node, Node) or not path.startswith(prefix):
            continue
        name = path[len(prefix) :].removeprefix(".")
        overrides: Mapping[str, Field] = node.__dict__.get(OVERRIDES, {})
        if name in getattr(type(node), "__declarations__", {}):
            return id(node), 0
        parameter = network_parameters(node).get(name)
        if parameter is not None:
            return id(parameter), id(overrides.get(name))
    return None


def network_parameters(node: Node) -> dict[str, nn.Parameter]:
    """All parameters of the networks in a Module's fields, by dotted path from there."""
    return {
        join(path, name): parameter
        for path, net in nets_of(node)
        for name, parameter in net.named_parameters(remove_duplicate=False)
    }


def _fitted_init(path: str, value: Tensor, like: Tensor) -> Tensor:
    if not value.dim():
        value = value.expand(like.shape)
    value = _same_shape(f"The initial value of the parameter {path!r}", value, like)
    return value.to(like.device, like.dtype)


def _same_shape(what: str, value: Tensor, like: Tensor) -> Tensor:
    if value.shape != like.shape:
        raise ShapeError(
            f"{what} is {describe(value)}, but it stands for a parameter of a torch.nn module "
            f"that is {describe(like)}. Broadcasting would tie its numbers together. Give it the "
            f"shape {list(like.shape)}."
        )
    return value


def _empty(like: Tensor) -> Tensor:
    """What is to be known of a parameter, without its numbers."""
    return like.new_zeros(()).expand(like.shape)
