"""The pure runs: ``apply``, ``apply_with_state``, ``trace`` and ``log_density``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeGuard, TypeVar

import torch
from pyro.distributions import is_validation_enabled
from torch import Tensor, nn

from .._compat._functorch import plain
from .._compat._pyro import wrapped_by
from .._core._types import State, Values
from .._declare._reads import join
from .._declare._tree import nodes
from .._errors import DtypeError, SupportError, UnknownNameError, describe, near
from ..random import Key, key
from ..random._reuse import consume
from ._execute import Call, Joint, Outcome, Setting, execute, jointly, require_in_params, root_of
from ._init import check_declared, declared
from ._mapping import explained
from ._sites import Site

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Trace(NamedTuple):
    """The record of a run: a pytree of tensors, so a vmapped ``trace`` returns one.

    Attributes:
        latents: Values of the random sites that were not observed; what :func:`log_density` takes.
            The indices of a subsampled plate are among them, under the plate's name.
        observed: Values of the observed sites.
        deterministic: Values of the deterministic sites.
        log_densities: Per site, scaled and masked, of the shape of the site's batch.
        log_density: The sum of all of these: the joint log density.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random, trace
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.deterministic("square", z**2)
        >>> keys = random.split(random.key(0), 5)
        >>> _, records = torch.vmap(lambda key: (0.0 * key, trace(model, {}, key)[1]))(keys)
        >>> sorted(records.values), records.log_density.shape
        (['square', 'z'], torch.Size([5]))
    """

    latents: dict[str, Tensor]
    observed: dict[str, Tensor]
    deterministic: dict[str, Tensor]
    log_densities: dict[str, Tensor]
    log_density: Tensor

    @property
    def values(self) -> dict[str, Tensor]:
        """The values of all sites, by name."""
        return {**self.latents, **self.observed, **self.deterministic}


def apply(
    model: Callable[P, R], params: Values, key: Key, /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run a model as a pure function of its parameters, a key and its arguments.

    Each parameter is the dict's value, constrained; each random site is drawn from
    ``fold_in(key, hash of the site's name)``, so a site's draw depends on (key, name) alone.
    Global random state, Pyro's parameter store and Pyro's handler stack are neither read nor
    changed. Legal inside ``torch.func`` transforms.

    Args:
        model: A Module, a method of one, or any Pyro model: a function with ``pyro`` statements, a
            ``PyroModule``, a ``poutine``-wrapped callable.
        params: Unconstrained values by dotted path, as :func:`init` returns them.
        key: A key of ``purepyro.random``.
        *args: The model's arguments.
        **kwargs: The same, by name.

    Returns:
        What the model returns.

    Raises:
        MissingNameError, UnknownNameError: if ``params`` lacks a name or has one too many.
        ShapeError, DtypeError, SupportError: if a parameter has another shape or dtype than
            declared or is not finite; if an observed value has not exactly its site's shape.
        DuplicateSiteError: if two sites have one name.
        MutationError: if the model changes an input or a buffer in place.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import apply, random
        >>> def model(x):
        ...     slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        ...     return slope * x
        >>> key = random.key(0)
        >>> a = apply(model, {}, key, torch.ones(2))
        >>> bool((a == apply(model, {}, key, torch.ones(2))).all())
        True
    """
    consume(key, "apply")
    return _checked_run(model, params, key, args, kwargs, _result)


def apply_with_state(
    model: Callable[P, R],
    params: Values,
    key: Key,
    state: Values,
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> tuple[R, State]:
    """:func:`apply` for models with buffers: state in, state out.

    Args:
        model: As for :func:`apply`.
        params: As for :func:`apply`.
        key: As for :func:`apply`.
        state: The buffers to start from, by dotted path, as :func:`init_state` returns them.
        *args: The model's arguments.
        **kwargs: The same, by name.

    Returns:
        What the model returns, and the buffers after the run. ``state`` itself stays as it is.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from purepyro import Module, apply_with_state, init, init_state, random
        >>> class Net(Module):
        ...     norm: nn.BatchNorm1d
        ...
        ...     def forward(self, x):
        ...         return self.norm(x)
        >>> model, key = Net(nn.BatchNorm1d(2)), random.key(0)
        >>> state = init_state(model)
        >>> y, new = apply_with_state(model, init(model, key), key, state, torch.randn(8, 2))
        >>> int(state["norm.num_batches_tracked"]), int(new["norm.num_batches_tracked"])
        (0, 1)
    """
    consume(key, "apply_with_state")
    outcome = _checked_run(model, params, key, args, kwargs, _itself, state=state)
    after = outcome.buffers.now()
    unknown = [name for name in state if name not in after]
    if unknown:
        raise UnknownNameError(
            f"The state has the buffer {unknown[0]!r}, which the model does not. "
            f"{near(unknown[0], after)} Start from init_state(model)."
        )
    return outcome.result, after


def init_state(model: object, /) -> State:
    """The buffers of the ``torch.nn`` modules in a model, by dotted path, as tensors of their own.

    Args:
        model: A Module, or a ``PyroModule``.

    Example:
        >>> from torch import nn
        >>> from purepyro import Module, init_state
        >>> class Net(Module):
        ...     norm: nn.BatchNorm1d
        >>> sorted(init_state(Net(nn.BatchNorm1d(2))))
        ['norm.num_batches_tracked', 'norm.running_mean', 'norm.running_var']
    """
    root = root_of(model) or model
    nets = [(path, node) for path, node in nodes(root) if isinstance(node, nn.Module)]
    return {
        join(path, name): buffer.detach().clone()
        for path, net in nets
        for name, buffer in net.named_buffers()
    }


def trace(
    model: Callable[P, R], params: Values, key: Key, /, *args: P.args, **kwargs: P.kwargs
) -> tuple[R, Trace]:
    """:func:`apply`, with the record of the run: values and log densities by site name.

    Args:
        model: As for :func:`apply`.
        params: As for :func:`apply`.
        key: As for :func:`apply`.
        *args: The model's arguments.
        **kwargs: The same, by name.

    Returns:
        What the model returns, and the :class:`Trace`.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import random, trace
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> _, record = trace(model, {}, random.key(0), torch.zeros(3))
        >>> {name: list(value.shape) for name, value in record.log_densities.items()}
        {'loc': [], 'y': [3]}
    """
    consume(key, "trace")
    return _checked_run(model, params, key, args, kwargs, _recorded)


def log_density(
    model: Callable[P, object],
    params: Values,
    values: Values,
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Tensor:
    """The joint log density of a model at given values of its latent sites.

    It is the sum over all sites, observed ones included, each scaled and masked; a scalar,
    differentiable in ``params`` and ``values``.

    Args:
        model: As for :func:`apply`.
        params: As for :func:`apply`.
        values: A constrained value for each latent site, by name.
        *args: The model's arguments.
        **kwargs: The same, by name.

    Raises:
        MissingNameError, UnknownNameError: if ``values`` lacks a site or names none.
        ShapeError, SupportError: if a value has another shape than its site, or lies outside of
            the support.

    Example:
        >>> import torch, pyro, pyro.distributions as dist
        >>> from purepyro import log_density
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> log_density(model, {}, {"z": torch.tensor(0.0)})
        tensor(-0.9189)
    """

    def scored(outcome: Outcome[object]) -> Tensor:
        outcome.buffers.require_unchanged()
        unused = [name for name in values if name not in outcome.values_read]
        if unused:
            raise UnknownNameError(_unused_value_message(unused[0], outcome.sites))
        return record(outcome.sites).log_density

    return _checked_run(model, params, key(0), args, kwargs, scored, values=values, draws=False)


def record(sites: Mapping[str, Site]) -> Trace:
    """The sites of a run as a :class:`Trace`."""
    with explained():
        densities = {
            site.name: site.log_density() for site in sites.values() if site.kind != "subsample"
        }
    values = {
        kind: {site.name: site.value for site in sites.values() if site.kind in kinds}
        for kind, kinds in _KINDS.items()
    }
    total = sum((density.sum() for density in densities.values()), start=torch.zeros(()))
    return Trace(**values, log_densities=densities, log_density=total)


_KINDS = {
    "latents": ("latent", "subsample"),
    "observed": ("observed",),
    "deterministic": ("deterministic",),
}


def _itself(outcome: Outcome[R]) -> Outcome[R]:
    return outcome


def _result(outcome: Outcome[R]) -> R:
    outcome.buffers.require_unchanged()
    return outcome.result


def _recorded(outcome: Outcome[R]) -> tuple[R, Trace]:
    return _result(outcome), record(outcome.sites)


def _is_record(value: object) -> TypeGuard[tuple[object, Trace]]:
    return type(value) is tuple and len(value) == 2 and type(value[1]) is Trace


def _checked_run(
    model: Callable[..., R],
    params: Values,
    key: Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    finish: Callable[[Outcome[R]], T],
    *,
    values: Values | None = None,
    state: Values | None = None,
    draws: bool = True,
) -> T:
    """What ``finish`` makes of a run that accepts exactly the parameters of the model, finite ones.

    It scores sites, for which networks have to compute with the params still.
    """
    if not isinstance(params, Mapping):
        raise DtypeError(
            f"The params are {describe(params)}, which is no dict of tensors. The order is "
            "(model, params, key, *args); for a model without parameters write {}."
        )
    root = root_of(model)
    if root is not None:
        check_declared(root, params, complete=wrapped_by(model) is None)
    _check_finite(params)
    setting = Setting(params=params, values=values or {}, state=state, draws=draws)

    def body(joint: Joint) -> T:
        with explained():
            outcome = execute(model, key, args, kwargs, setting, joint)
        known = outcome.params_read | (declared(root).keys() if root is not None else set())
        unknown = [name for name in params if name not in known]
        if unknown:
            raise UnknownNameError(
                f"The params have {unknown[0]!r}, which names no parameter of this run. "
                f"{near(unknown[0], known)} Remove it, or start from "
                "init(model, key)."
            )
        finished = finish(outcome)
        # Of a record, the joint density has the gradients of all.
        scored = finished[1].log_density if _is_record(finished) else finished
        require_in_params(model, joint, (outcome.result, scored))
        return finished

    return jointly((model,), Call(key, args, kwargs, params), body)


def _check_finite(params: Values) -> None:
    if not is_validation_enabled():
        return
    for name, value in params.items():
        seen = plain(value) if isinstance(value, Tensor) else None
        if seen is not None and not bool(torch.isfinite(seen).all()):
            raise SupportError(
                f"The parameter {name!r} ({describe(value)}) is not finite, so nothing computed "
                "from it would be. Look for the step that made it so, or start again from "
                "init(model, key)."
            )


def _unused_value_message(name: str, sites: Mapping[str, Site]) -> str:
    site = sites.get(name)
    if site is None:
        latent = [s.name for s in sites.values() if s.kind in ("latent", "subsample")]
        return f"The values have {name!r}, which names no site of this run. {near(name, latent)}"
    return (
        f"The values have {name!r}, but that site is {site.kind} in this run, so its value comes "
        "from the model. Drop it from the values; trace(...)[1].latents holds what is needed."
    )
