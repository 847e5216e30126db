"""`jit`: trace once, compile, call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from torch import Tensor

from .._compat._pyro import is_transforming
from .._core._pickling import Portable, arrived
from .._errors import DeclarationError, describe
from ._cache import CacheInfo, Specializations
from ._trace import Traced
from .inductor._backend import compiled
from .passes._graph import outputs_of, own_outputs
from .passes._index_checks import combine
from .passes._merge_draws import with_joint_draws
from .passes._sequence import tune

P = ParamSpec("P")
R = TypeVar("R")

_LIMIT = 32

_ENABLED: ContextVar[bool] = ContextVar("purepyro_jit_enabled", default=True)


class Jitted(Generic[P, R]):
    """A function with compiled graphs behind it; see :func:`jit`."""

    __wrapped__: Callable[P, R]

    def __init__(self, fn: Callable[P, R], limit: int) -> None:
        name = getattr(fn, "__qualname__", type(fn).__name__)
        self._graphs: Specializations[Callable[[list[Tensor]], R]] = Specializations(
            fn, _build, limit, name
        )
        update_wrapper(self, fn, updated=())
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns."""
        if is_transforming() or not _ENABLED.get():
            return self.__wrapped__(*args, **kwargs)
        found = self._graphs.find(args, kwargs)
        return found.built(found.inputs)

    @overload
    def __get__(self, instance: None, owner: type) -> Jitted[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[..., R]: ...
    def __get__(self, instance: object | None, owner: type) -> Jitted[P, R] | Callable[..., R]:
        """As a method, bound to its instance, which is then the first argument."""
        return self if instance is None else cast("Callable[..., R]", MethodType(self, instance))

    def cache_info(self) -> CacheInfo:
        """How many calls there were, and how many graphs there are."""
        return self._graphs.info()

    def cache_clear(self) -> None:
        """Forget the graphs."""
        self._graphs.clear()

    def __reduce__(self) -> str | tuple[object, ...]:
        """Copies and pickles start without graphs; what a decorator made goes by its name."""
        name: str = getattr(self.__wrapped__, "__qualname__", "")
        home: object = sys.modules.get(getattr(self.__wrapped__, "__module__", None) or "")
        for part in name.split("."):
            home = getattr(home, part, None)
        if home is self:
            return name
        return _restored, (Portable(self.__wrapped__), self._graphs.info().maxsize)


def _restored(fn: Portable[Callable[P, R]] | Callable[P, R], limit: int) -> Jitted[P, R]:
    return Jitted(arrived(fn), limit)


@overload
def jit(fn: Callable[P, R], /, *, max_specializations: int = _LIMIT) -> Jitted[P, R]: ...
@overload
def jit(*, max_specializations: int = _LIMIT) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...
def jit(
    fn: Callable[P, R] | None = None, /, *, max_specializations: int = _LIMIT
) -> Jitted[P, R] | Callable[[Callable[P, R]], Jitted[P, R]]:
    """A compiled version of a function of tensors, with the same signature.

    The first call with a kind of arguments traces the function into a graph and compiles it, by
    Inductor; later ones run the graph. The semantics are those of ``jax.jit``:

    * Live are tensors: those in the arguments (in tuples, lists, dicts and named tuples of any
      depth), and those that the function finds in closures, globals and attributes.
    * All else is static. Another value, shape, stride, dtype, device or structure is another graph,
      so a Python number that changes is better passed as a tensor.
    * The function is pure: it must not change its arguments, ask tensors for their numbers (``if``,
      ``.item()``), and what it does in Python, such as ``print``, happens while it is traced.
    * The results never share memory with the arguments and carry no gradient: transform inside,
      ``jit(torch.func.grad(fn))``, ``jit(torch.vmap(svi.step))``. Within a transform or another jit
      the function itself is called.

    Draws of ``purepyro.random`` are those of eager mode, to rounding. Compiled code is kept on disk
    (in torch's cache, see ``TORCHINDUCTOR_CACHE_DIR``), so the next process finds it. Without a C++
    compiler (for CUDA: Triton) the traced graph runs operation by operation, with one warning. Each
    trace is reported with its reason by the logger ``purepyro.jit`` at the level INFO.

    Args:
        fn: The function: also a bound method, a model, a transformed function. Without it, a
            decorator.
        max_specializations: How many graphs there may be.

    Raises:
        TraceError: If the function asks a tensor for its numbers, or is called with something that
            is neither a tensor nor hashable.
        MutationError: If it changes a tensor that it did not make.
        GradientError: If a tensor that it is given, or finds, requires a gradient.
        SpecializationError: If it would need more graphs than it may have.
        OutOfRangeError: If an index names no element; also at a later call.

    Example:
        >>> import torch
        >>> from purepyro import jit
        >>> @jit
        ... def slope(x):
        ...     return torch.func.grad(lambda x: x.square().sum())(x)
        >>> slope(torch.arange(3.0))
        tensor([0., 2., 4.])
        >>> slope(torch.ones(3)), slope.cache_info()
        (tensor([2., 2., 2.]), CacheInfo(hits=1, misses=1, maxsize=32, currsize=1))
    """
    if fn is None:
        return partial(_jitted, limit=max_specializations)
    return _jitted(fn, max_specializations)


def _jitted(fn: Callable[P, R], limit: int) -> Jitted[P, R]:
    if not callable(fn):
        raise DeclarationError(
            f"jit got {describe(fn)}, which cannot be called. Pass a function: jit(svi.step), and "
            "not jit(svi.step(state))."
        )
    return Jitted(fn, limit)


def _build(traced: Traced, inputs: Sequence[Tensor], _: object) -> Callable[[list[Tensor]], Any]:
    graph, checks, result = traced.module.graph, traced.checks, traced.result
    if checks.known:
        combine(graph, outputs_of(graph)[-len(checks.known) :])
    module = with_joint_draws(traced.module)
    tune(module.graph)
    own_outputs(module.graph)
    run = compiled(module, inputs)

    def call(inputs: list[Tensor]) -> object:
        return result(run(*inputs))

    def checked(inputs: list[Tensor]) -> object:
        *found, number = run(*inputs)
        checks.raise_for(int(number))
        return result(found)

    return checked if checks.known else call


@contextmanager
def disable_jit() -> Iterator[None]:
    """A stretch of code in which nothing is compiled: jitted functions and runs are eager.

    Example:
        >>> import torch
        >>> from purepyro import disable_jit, jit
        >>> with disable_jit():
        ...     jit(lambda x: print("eager") or x)(torch.tensor(1.0))
        eager
        tensor(1.)
    """
    token = _ENABLED.set(False)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def is_enabled() -> bool:
    """Whether things are compiled."""
    return _ENABLED.get()
