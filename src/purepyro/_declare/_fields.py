"""The two declarations, ``PyroParam`` and ``PyroSample``: typed descriptors.

A declaration holds no value. Read on an instance that takes part in a run it emits Pyro's own
effect (``pyro.param``, ``pyro.sample`` or ``pyro.deterministic``) under the field's dotted path;
read on the class it is the declaration itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, Never, Self, overload

import attrs
import pyro
import torch
from pyro.distributions import Distribution, constraints
from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions.constraints import Constraint
from typing_extensions import TypeVar

from .._compat._pyro import Plates, emit_sample
from .._core._types import Prior
from .._errors import DeclarationError, DtypeError, FrozenError, describe
from ._plate_warning import warn_local
from ._reads import OVERRIDES, read
from ._tree import Node

# The bound lets checkers infer nothing of a lambda's argument, instead of object.
Owner = TypeVar("Owner", bound=Any, default=Any, contravariant=True)
Other = TypeVar("Other")


class Field(Generic[Owner]):
    """What the two declarations share: a name, and being read."""

    name: str | None = None
    once: bool = True
    local: bool | None = True
    # Of the parameter of a network in whose place the declaration stands.
    shape: torch.Size | None = None

    def fitting(self, shape: torch.Size | None) -> Self:
        """The declaration itself, marked as one for a parameter of that shape."""
        self.shape = shape
        return self

    def __set_name__(self, owner: type, name: str) -> None:
        # The same object under a second name is refused by Module, with a better error.
        if self.name is None:
            self.name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Tensor: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Self | Tensor:
        if instance is None:
            return self
        name = self.name or ""
        return read(instance, name, instance.__dict__.get(OVERRIDES, {}).get(name, self))

    def __set__(self, instance: object, value: Never) -> None:
        # For type checkers: without it they take an assignment for one of a Tensor.
        raise FrozenError(f"The declared field {self.name!r} was assigned. Write replace(...).")

    def emit(self, path: str, owner: object) -> Tensor:
        """Emit the effect of the field at ``path`` and return its answer."""
        raise NotImplementedError

    def became_local(self, path: str, owner: object, value: Tensor, plates: Plates) -> None:
        """Take note that the first read, inside ``plates``, made the field local to them."""


class PyroParam(Field[Owner]):
    """Declares a learnable parameter, as a class attribute or on a method.

    The parameter dict holds the unconstrained value ``u``; the field reads as
    ``transform_to(constraint)(u)``, computed once a run.

    Args:
        init: The initial constrained value: a tensor; a callable without arguments; or a callable
            of the instance, which may read plain fields and other parameters. Torch's random
            functions called by it draw from the key of ``init``.
        constraint: The set the value lies in, one of ``pyro.distributions.constraints``.
        event_dim: How many of the rightmost dimensions belong to one datum. Inside a subsampled
            plate the dimensions left of them are subsampled along with the data. ``None``: all
            dimensions, so no subsampling.

    Raises:
        DeclarationError: if ``init`` is neither a tensor nor a callable of at most one argument.
        DtypeError: if ``init`` is a tensor that cannot be learned because it is not floating.

    Source: ``pyro.nn.PyroParam``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, apply, init, random
        >>> class Scaled(Module):
        ...     size: int
        ...     scale = PyroParam(torch.tensor(2.0), constraint=dist.constraints.positive)
        ...
        ...     @PyroParam
        ...     def shift(self):
        ...         return torch.zeros(self.size)
        ...
        ...     def forward(self, x):
        ...         return self.scale * x + self.shift
        >>> model, key = Scaled(3), random.key(0)
        >>> params = init(model, key)
        >>> sorted(params)
        ['scale', 'shift']
        >>> apply(model, params, key, torch.ones(3))
        tensor([2., 2., 2.])
    """

    def __init__(
        self,
        init: Tensor | Callable[[], Tensor] | Callable[[Owner], Tensor] | None = None,
        constraint: Constraint = constraints.real,
        event_dim: int | None = None,
    ) -> None:
        if not isinstance(constraint, Constraint):
            raise DeclarationError(
                f"PyroParam got the constraint {describe(constraint)}, which is no constraint of "
                "pyro.distributions.constraints. Write for example constraint=constraints.positive."
            )
        if event_dim is not None and event_dim < 0:
            raise DeclarationError(
                f"PyroParam got event_dim={event_dim}. It counts dimensions from the right, so it "
                "is 0 or more, or None for all of them."
            )
        self.constraint = constraint
        self.event_dim = event_dim
        # Inside a plate that subsamples, each read may see another subset, as with pyro.param.
        self.once = event_dim is None
        self.init = init if init is None else _checked_init(init)

    def __call__(self, init: Callable[[Other], Tensor]) -> PyroParam[Other]:
        """The decorator form with arguments: ``@PyroParam(constraint=...)``."""
        return PyroParam(init, self.constraint, self.event_dim)

    def initial(self, path: str, owner: object) -> Tensor:
        """The initial constrained value on ``owner``, a tensor of its own."""
        init = self.init if isinstance(self.init, Tensor) else call_with(self.init, owner)
        if not isinstance(init, Tensor):
            raise DeclarationError(
                f"The initial value of the parameter {path!r} is {describe(init)}, which is "
                "no Tensor. Return a Tensor, for example torch.tensor(1.0)."
            )
        _require_floating(init, path)
        return init.detach().clone()

    def emit(self, path: str, owner: object) -> Tensor:
        """Emit ``pyro.param`` at ``path``."""
        return pyro.param(
            path,
            partial(self.initial, path, owner),
            constraint=self.constraint,
            event_dim=self.event_dim,
        )

    def __repr__(self) -> str:
        return f"PyroParam({describe(self.init)}, constraint={self.constraint})"


class PyroSample(Field[Owner]):
    """Declares a random variable, as a class attribute or on a method.

    The field reads as one draw a run. The draw happens at the first read and depends on the run's
    key and the field's dotted path alone.

    Where the first read is inside a plate, directly or through another field's prior, the field
    becomes local to the plate, as in Pyro: one draw for each row. That is seldom meant, so it warns
    unless ``local`` says what is.

    Args:
        prior: A distribution of Pyro; or a callable of the instance that returns one, and may read
            other fields (a hierarchy); or one that returns a Tensor, which declares a
            deterministic site: recorded, with no density.
        local: What a first read inside a plate means. ``False``: the field is drawn once, as if it
            were read before the outermost plate, wherever it is read. ``True``: it is local to the
            plate. ``None``: the same, with a warning, once for each class and field. A plate
            by which Pyro's own algorithms repeat a whole model (``vectorize_particles``,
            ``parallel=True``) is none of the model's plates.
        infer: Settings of the site for inference algorithms, as in ``pyro.sample``.

    Raises:
        DeclarationError: if ``prior`` is neither a distribution nor such a callable.

    Source: ``pyro.nn.PyroSample``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroSample, Prior, apply, random
        >>> class Line(Module):
        ...     scale = PyroSample(dist.HalfNormal(1.0))
        ...
        ...     @PyroSample
        ...     def slope(self) -> Prior:
        ...         return dist.Normal(0.0, self.scale)
        ...
        ...     def forward(self, x):
        ...         return x * self.slope
        >>> apply(Line(), {}, random.key(0), torch.ones(2)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        prior: Distribution | Callable[[], Prior] | Callable[[Owner], Prior] | None = None,
        *,
        local: bool | None = None,
        infer: Mapping[str, object] | None = None,
    ) -> None:
        if local is not None and not isinstance(local, bool):
            raise DeclarationError(
                f"PyroSample got local={describe(local)}. Write local=False for one draw outside "
                "of plates, local=True for one a row of the plate that reads it first, or leave it "
                "out."
            )
        self.local = local
        self.infer = dict(infer or {})
        self.prior = prior if prior is None else _checked_prior(prior)

    def __call__(self, prior: Callable[[Other], Prior]) -> PyroSample[Other]:
        """The decorator form with arguments: ``@PyroSample(local=...)``."""
        return PyroSample(prior, local=self.local, infer=self.infer)

    def emit(self, path: str, owner: object) -> Tensor:
        """Emit ``pyro.sample`` or ``pyro.deterministic`` at ``path``."""
        prior = self._prior_on(path, owner)
        if isinstance(prior, Tensor):
            return pyro.deterministic(path, prior)
        if isinstance(prior, Distribution):
            return emit_sample(path, prior, self.infer)
        raise DeclarationError(
            f"The prior of {path!r} returned {describe(prior)}, which is neither a distribution "
            f"nor a Tensor. {_prior_advice(prior)}"
        )

    def became_local(self, path: str, owner: object, value: Tensor, plates: Plates) -> None:
        """Warn, once for each class and field, if nothing says that this is meant."""
        if self.local is None and isinstance(owner, Node):
            warn_local(path, owner, value, plates)

    def _prior_on(self, path: str, owner: object) -> object:
        if isinstance(self.prior, Distribution) or self.prior is None:
            return self.prior
        try:
            return call_with(self.prior, owner)
        except Exception as error:
            error.add_note(f"This happened while building the prior of the site {path!r}.")
            raise

    def __repr__(self) -> str:
        return f"PyroSample({describe(self.prior)})"


def static(*, default: Any = attrs.NOTHING) -> Any:
    """A field that is a setting only: what is in it takes no part in a run.

    A Module in a plain field is a submodule, whose parameters and sites belong to the whole. In a
    static field it is just a value, as the model inside a guide is.

    Example:
        >>> import attrs
        >>> from purepyro import Module, static
        >>> class Guide(Module):
        ...     model: Module = static()
        >>> attrs.fields(Guide).model.metadata
        mappingproxy({'static': True})
    """
    return attrs.field(default=default, metadata={"static": True})


def call_with(fn: Callable[..., object] | None, owner: object) -> object:
    """What a callable of the instance, or of nothing, returns."""
    if fn is None:
        return None
    return fn(owner) if _arity(fn) else fn()


def _arity(fn: Callable[..., object]) -> int:
    """How many arguments ``fn`` must get by position."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # some built-in callables have no signature
        return 0
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def _checked_init(init: object) -> Tensor | Callable[..., object]:
    if isinstance(init, Tensor):
        _require_floating(init, None)
        return init
    if callable(init) and _arity(init) <= 1:
        return init
    raise DeclarationError(
        f"PyroParam got {describe(init)} as its initial value. It takes a Tensor, a callable "
        "without arguments, or a callable of the instance. Write for example "
        "PyroParam(torch.tensor(1.0))."
    )


def _checked_prior(prior: object) -> Distribution | Callable[..., object]:
    if isinstance(prior, Distribution):
        return prior
    if callable(prior) and not isinstance(prior, type) and _arity(prior) <= 1:
        return prior
    raise DeclarationError(
        f"PyroSample got {describe(prior)}, which is neither a distribution of Pyro nor a callable "
        f"of the instance. {_prior_advice(prior)}"
    )


def _prior_advice(prior: object) -> str:
    if isinstance(prior, TorchDistribution):
        name = type(prior).__name__
        return f"It is torch's: write pyro.distributions.{name}(...), which Pyro can sample."
    if isinstance(prior, Tensor):
        return "Write PyroParam(tensor) to learn it, or make it a plain field `name: Tensor`."
    return (
        "Write for example PyroSample(dist.Normal(0.0, 1.0)), or return a distribution of "
        "pyro.distributions from the prior."
    )


def _require_floating(init: Tensor, name: str | None) -> None:
    if not (init.is_floating_point() or init.is_complex()):
        where = f" {name!r}" if name else ""
        raise DtypeError(
            f"The parameter{where} has the initial value {describe(init)}. Only floating tensors "
            f"have gradients, so it could not be learned. Write "
            f"{torch.get_default_dtype()!s} numbers, for example torch.tensor(1.0)."
        )
