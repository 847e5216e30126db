"""Parameters: starting values, and the way between constrained and unconstrained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ParamSpec, overload
from weakref import WeakKeyDictionary

import attrs
import torch
from torch.distributions import transform_to
from torch.distributions.constraints import Constraint

from .._compat._functorch import plain
from .._compat._pyro import concretely
from .._core._types import Params, Values
from .._declare._bind import bind
from .._declare._fields import Field, PyroParam
from .._declare._module import Module
from .._declare._reads import OVERRIDES
from .._declare._tree import Node, nodes
from .._errors import MissingNameError, SupportError, UnknownNameError, describe, near
from ..random import Key, key
from ..random._reuse import consume
from ._execute import Call, Joint, Outcome, Setting, as_model, execute, jointly, root_of
from ._handler import check_param

P = ParamSpec("P")


@attrs.frozen
class Spec:
    """What a Module declares of one parameter; the shape is the unconstrained one."""

    shape: torch.Size
    dtype: torch.dtype
    constraint: Constraint


# Facts about immutable values, worked out once for each.
_SPECS: WeakKeyDictionary[Node, dict[str, Spec]] = WeakKeyDictionary()


@overload
def init(model: Module | Callable[..., object], key: Key, /) -> Params: ...
@overload
def init(model: Callable[P, object], key: Key, /, *args: P.args, **kwargs: P.kwargs) -> Params: ...
def init(model: Callable[..., object] | Module, key: Key, /, *args: Any, **kwargs: Any) -> Params:
    """Starting values of all learnable parameters, unconstrained, by dotted path.

    A Module's are known from its declarations, so no data is needed. Those which only
    ``pyro.param`` statements make (a plain Pyro model, a guide) need a run: then pass the model's
    arguments.

    Args:
        model: A Module or any Pyro model.
        key: Random starting values depend on it and on the parameter's name.
        *args: Arguments of the model, if its parameters come from running it.
        **kwargs: The same, by name.

    Returns:
        ``{path: inverse of transform_to(constraint) at the initial value}``, tensors of their own.

    Raises:
        SupportError: if an initial value is not finite or violates its constraint.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, constrain, init, random
        >>> class Noise(Module):
        ...     scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)
        >>> params = init(Noise(), random.key(0))
        >>> params
        {'scale': tensor(0.6931)}
        >>> constrain(Noise(), params)
        {'scale': tensor(2.)}
    """
    consume(key, "init")
    return initial(as_model(model), key, args, kwargs).params


def initial(
    model: Callable[..., object],
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    beside: Callable[..., object] | None = None,
    elsewhere: Values = MappingProxyType({}),
) -> Outcome[object]:
    """A run that collects parameters: the declared ones, then those of running the model.

    Args:
        model: The model.
        key: Random starting values depend on it.
        args: Arguments of the model.
        kwargs: The same, by name.
        beside: Another model, which may register networks that this one computes with.
        elsewhere: Starting values of parameters that the other one starts.
    """
    root = root_of(model)
    params: Params = {}
    constraints: dict[str, Constraint] = {}
    if root is not None:
        of_fields: Outcome[object] = execute(
            lambda: _read_declared(root), key, (), {}, Setting(collect=True)
        )
        if not (type(root).starts_by_running or args or kwargs):
            return of_fields
        params, constraints = of_fields.params, of_fields.constraints
    setting = Setting(params=params, collect=True, elsewhere=elsewhere)
    models = (model,) if beside is None else (model, beside)

    def collected(joint: Joint) -> Outcome[object]:
        return execute(model, key, args, kwargs, setting, joint)

    outcome = jointly(models, Call(key, args, kwargs, params), collected)
    return attrs.evolve(outcome, constraints={**constraints, **outcome.constraints})


def constrain(
    model: Callable[..., object] | Module, params: Values, /, *args: Any, **kwargs: Any
) -> Params:
    """The parameters as the model sees them: ``transform_to(constraint)(value)`` for each.

    Args:
        model: A Module or any Pyro model.
        params: Unconstrained values, as :func:`init` returns them.
        *args: Arguments of the model, if its parameters come from running it.
        **kwargs: The same, by name.

    Raises:
        UnknownNameError: if ``params`` has a name the model does not.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, constrain
        >>> class Coin(Module):
        ...     p = PyroParam(torch.tensor(0.5), constraint=dist.constraints.unit_interval)
        >>> constrain(Coin(), {"p": torch.tensor(0.0)})
        {'p': tensor(0.5000)}
    """
    known = _constraints(model, args, kwargs)
    return {
        name: transform_to(_constraint_of(name, known))(value) for name, value in params.items()
    }


def unconstrain(
    model: Callable[..., object] | Module, values: Values, /, *args: Any, **kwargs: Any
) -> Params:
    """The inverse of :func:`constrain`.

    Args:
        model: A Module or any Pyro model.
        values: Constrained values by name.
        *args: Arguments of the model, if its parameters come from running it.
        **kwargs: The same, by name.

    Raises:
        UnknownNameError: if ``values`` has a name the model does not.
        SupportError: if a value violates its constraint.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, unconstrain
        >>> class Noise(Module):
        ...     scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)
        >>> unconstrain(Noise(), {"scale": torch.tensor(1.0)})
        {'scale': tensor(0.)}
    """
    known = _constraints(model, args, kwargs)
    unconstrained: Params = {}
    for name, value in values.items():
        constraint = _constraint_of(name, known)
        seen = plain(value)
        if seen is not None and not bool(constraint.check(seen).all()):
            raise SupportError(
                f"The value of the parameter {name!r} ({describe(value)}) does not satisfy its "
                f"constraint {constraint}, so it has no unconstrained counterpart. Give a value "
                "inside the constraint."
            )
        unconstrained[name] = transform_to(constraint).inv(value)
    return unconstrained


def declared(root: Node) -> dict[str, Spec]:
    """What the Modules from ``root`` down declare, by dotted path."""
    specs = _SPECS.get(root)
    if specs is None:
        with concretely():
            outcome = execute(lambda: _read_declared(root), key(0), (), {}, Setting(collect=True))
        specs = _SPECS[root] = {
            name: Spec(value.shape, value.dtype, outcome.constraints[name])
            for name, value in outcome.params.items()
        }
    return specs


def check_declared(root: Node, params: Values, *, complete: bool) -> None:
    """Refuse params that miss, or have in another shape or dtype, what ``root`` declares.

    With ``complete`` unset a name may be missing: handlers around a Module can make it random.
    """
    for name, spec in declared(root).items():
        if name not in params:
            if not complete:
                continue
            raise MissingNameError(
                f"The params have no {name!r}, which the model declares. "
                f"{near(name, params)} Start from init(model, key)."
            )
        check_param(name, params[name], spec.shape, spec.dtype)


def _read_declared(root: Node) -> None:
    """Read every declared parameter once; those of ``torch.nn`` modules are read by binding."""
    for _, node in nodes(bind(root)):
        if isinstance(node, Module):
            for name in _params_of(node):
                getattr(node, name)


def _params_of(node: Module) -> list[str]:
    overrides: Mapping[str, Field[Any]] = node.__dict__.get(OVERRIDES, {})
    return [
        name
        for name, declaration in type(node).__declarations__.items()
        if isinstance(overrides.get(name, declaration), PyroParam)
    ]


def _constraints(
    model: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Constraint]:
    root = root_of(model)
    if root is not None and not (type(root).starts_by_running or args or kwargs):
        return {name: spec.constraint for name, spec in declared(root).items()}
    return initial(as_model(model), key(0), args, kwargs).constraints


def _constraint_of(name: str, known: Mapping[str, Constraint]) -> Constraint:
    if name not in known:
        raise UnknownNameError(
            f"The model has no parameter {name!r}. {near(name, known)} If a pyro.param statement "
            "makes it, pass the model's arguments too."
        )
    return known[name]
