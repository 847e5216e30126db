"""One traced graph for each kind of arguments.

The kind is what a graph depends on: the structure of the arguments and all of them that are not
tensors; of the tensors shape, stride, dtype and device; of what the function captured the same, and
the plain values in its closures. Inductor itself checks neither dtypes nor devices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import torch
from torch import Tensor

from .._compat._isolation import RUN_LOCK, intact
from .._compat._tracing import LOCK, Guard, unfit
from .._core._trees import Frame, leaves_of, named_leaves, taken_apart
from .._errors import GradientError, SpecializationError, TraceError, describe
from ._trace import Traced, trace
from .guards._captures import Captures, captures

T = TypeVar("T")

LOGGER = logging.getLogger("purepyro.jit")


class Call(NamedTuple):
    """The arguments of a call, taken apart.

    Attributes:
        tensors: The tensors among the leaves.
        fixed: All that is not a tensor: structure, other leaves, torch's global settings.
        args: The arguments as they came.
    """

    tensors: list[Tensor]
    fixed: tuple[object, ...]
    args: tuple[tuple[Any, ...], dict[str, Any]]


class Found(NamedTuple, Generic[T]):
    """What there is for some arguments.

    Attributes:
        built: What was built for their kind.
        inputs: The tensors to run it on: those of the arguments, then captured ones.
        kind: Their kind.
    """

    built: T
    inputs: list[Tensor]
    kind: Specialization[T]


class CacheInfo(NamedTuple):
    """How often a function was called, and traced.

    Attributes:
        hits: Calls for which there was a graph.
        misses: Calls that traced one.
        maxsize: How many graphs there may be.
        currsize: How many there are.
    """

    hits: int
    misses: int
    maxsize: int
    currsize: int


@attrs.frozen
class Specialization(Generic[T]):
    """What was built for one kind of arguments."""

    fixed: tuple[object, ...]
    guard: Guard
    guards: tuple[Guard, ...]
    captures: Captures
    seen: list[str]
    detached: bool
    built: T
    lazy: tuple[int, ...] = ()

    def found(self, call: Call) -> Found[T] | None:
        """What was built, and the tensors to run on, if this is the kind of the call."""
        if not _same(call.fixed, self.fixed) or self.captures.changed():
            return None
        captured = self.captures.current()
        if captured is None:
            return None
        inputs = [*call.tensors, *captured]
        fits = self.guard.holds(inputs) or self._holds_apart(inputs)
        return Found(self.built, resolved(inputs, self.lazy), self) if fits else None

    def still(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the function captures what it did when these inputs were found."""
        now = None if self.captures.changed() else self.captures.current()
        if now is None:
            return False
        first = len(inputs) - len(now)
        for place, (new, old) in enumerate(zip(now, inputs[first:], strict=True), start=first):
            # One that is resolved at each look is never the same.
            if new is not old and place not in self.lazy:
                return False
        guards = self.guards[len(self.guards) - len(now) :]
        return all(map(Guard.holds, guards, zip(now, strict=True)))

    def _holds_apart(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the guard refused the inputs only because one of them comes twice."""
        if len(inputs) != len(self.guards) or len(set(map(id, inputs))) == len(inputs):
            return False
        return all(map(Guard.holds, self.guards, zip(inputs, strict=True)))


def resolved(tensors: list[Tensor], lazy: Sequence[int]) -> list[Tensor]:
    """The tensors, of which these are negated or conjugated for now in name only."""
    if not lazy:
        return tensors
    found = list(tensors)
    with torch.no_grad():
        for place in lazy:
            found[place] = found[place].resolve_neg().resolve_conj()
    return found


class Specializations(Generic[T]):
    """The graphs of one function.

    Args:
        fn: The function.
        build: Makes of a trace, and of example inputs, what runs in its place.
        limit: How many there may be.
        name: What to call the function in messages.
    """

    def __init__(
        self,
        fn: Callable[..., object],
        build: Callable[[Traced, Sequence[Tensor], Any], T],
        limit: int,
        name: str,
    ) -> None:
        self.fn = fn
        self.name = name
        self._build = build
        self._limit = limit
        self._known: list[Specialization[T]] = []
        self._hits = 0
        self._misses = 0

    def info(self) -> CacheInfo:
        """The counts."""
        return CacheInfo(self._hits, self._misses, self._limit, len(self._known))

    def clear(self) -> None:
        """Forget all graphs."""
        self._known = []

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Found[T]:
        """What was built for these arguments, traced now if need be."""
        call = _take_apart(args, kwargs)
        found = self._look_up(call)
        if found is None:
            # A trace may run a model, for which runs take turns: always this one first.
            with RUN_LOCK, LOCK:
                found = self._look_up(call) or self._add(call)
        return found

    def _look_up(self, call: Call) -> Found[T] | None:
        for known in self._known:
            found = known.found(call)
            if found is not None:
                if known.detached:
                    self._refuse_gradients(call, found.inputs)
                self._hits += 1
                return found
        return None

    @intact
    def _add(self, call: Call) -> Found[T]:
        self._refuse_gradients(call, call.tensors)
        self._refuse_kinds(call, call.tensors)
        _refuse_unhashable(call, self.name)
        reason = self._reason(call)
        if len(self._known) >= self._limit:
            raise SpecializationError(
                f"jit({self.name}) has traced {self._limit} graphs, as many as it may, and needs "
                f"another one: {reason}. Each trace costs seconds. Pass numbers that change as "
                "tensors, keep shapes the same (drop or pad a last, smaller batch), or allow more "
                "by jit(fn, max_specializations=...)."
            )
        LOGGER.info("jit(%s) traces graph %d: %s", self.name, len(self._known) + 1, reason)
        given = resolved(call.tensors, _lazy(call.tensors))
        traced = trace(_of_tensors(self.fn, call), given, lambda: _names(call))
        static = [leaf for leaf in leaves_of(call.args) if not isinstance(leaf, Tensor)]
        captured = captures([self.fn, *static], traced.captured)
        inputs = [*call.tensors, *traced.captured]
        self._refuse_gradients(call, inputs)
        self._refuse_kinds(call, inputs)
        lazy = _lazy(inputs)
        ready = resolved(inputs, lazy)
        built = self._build(traced, ready, call)
        detached = any(tensor.requires_grad for tensor in inputs)
        guards = Guard(inputs), tuple(Guard([tensor]) for tensor in inputs)
        new = Specialization(call.fixed, *guards, captured, _seen(call), detached, built, lazy)
        self._known = [new, *self._known]
        self._misses += 1
        return Found(built, ready, new)

    def _refuse_kinds(self, call: Call, inputs: Sequence[Tensor]) -> None:
        """Refuse tensors that a graph would take for other ones."""
        for place, tensor in enumerate(inputs):
            kind = unfit(tensor)
            if kind:
                raise TraceError(
                    f"jit({self.name}): {self._called(call, place)} is {kind}. Compiled code reads "
                    "the elements of plain, dense tensors from their memory. Pass a plain one: "
                    "tensor.to_dense(), tensor.dequantize(), or tensor.as_subclass(torch.Tensor); "
                    "or call the function itself, without jit."
                )

    def _called(self, call: Call, place: int) -> str:
        """What to call an input."""
        named = place < len(call.tensors)
        return _names(call)[place] if named else "a tensor outside its arguments"

    def _refuse_gradients(self, call: Call, inputs: Sequence[Tensor]) -> None:
        if not torch.is_grad_enabled():
            return
        for place, tensor in enumerate(inputs):
            if tensor.requires_grad:
                raise GradientError(
                    f"jit({self.name}): {self._called(call, place)} ({describe(tensor)}) requires "
                    "a gradient, and the result of a compiled graph has none: it would silently "
                    "be zero. Put the gradient inside, jit(torch.func.grad(fn)), or pass "
                    "tensor.detach(), or call within torch.no_grad()."
                )

    def _reason(self, call: Call) -> str:
        """Why none of the known graphs fits."""
        if not self._known:
            return "the first call"
        last = self._known[0]
        changed = last.captures.changed()
        if changed:
            return f"the captured {changed}"
        now = _seen(call)
        for before, after in zip(last.seen, now, strict=False):
            if before != after:
                return f"{after}, before {before.partition(' is ')[2]}"
        if len(last.seen) != len(now) or last.fixed[0] != call.fixed[0]:
            return "the arguments have another structure"
        if last.fixed != call.fixed:
            return "torch's default dtype or autocast changed"
        return "a captured tensor has another shape, stride, dtype or device"


def _lazy(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The places of tensors whose elements are other ones than those in memory.

    Their guards tell them from all others.
    """
    return tuple(
        place for place, tensor in enumerate(tensors) if tensor.is_neg() or tensor.is_conj()
    )


def _take_apart(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    leaves, structure = taken_apart((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    settings = torch.get_default_dtype(), _autocast("cpu"), _autocast("cuda")
    if len(tensors) == len(leaves):
        return Call(tensors, (structure, settings), (args, kwargs))
    others = tuple(None if isinstance(leaf, Tensor) else _static(leaf) for leaf in leaves)
    return Call(tensors, (structure, settings, others), (args, kwargs))


def _autocast(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether two calls agree in all that is not a tensor."""
    try:
        return one == other
    except (RuntimeError, TypeError, ValueError):  # objects with tensors or arrays in them
        return False


class _Static(NamedTuple):
    """A leaf that is no tensor: ``1``, ``1.0`` and ``True`` are three kinds, NaN is one."""

    kind: type
    value: object
    text: str


def _static(leaf: object) -> _Static:
    if isinstance(leaf, float):
        return _Static(float, None, leaf.hex())
    if isinstance(leaf, slice):  # which Python 3.11 does not hash
        return _Static(slice, (leaf.start, leaf.stop, leaf.step), "")
    return _Static(type(leaf), leaf, "")


def _refuse_unhashable(call: Call, name: str) -> None:
    for path, leaf in named_leaves(call.args).items():
        if isinstance(leaf, Tensor):
            continue
        try:
            hash(_static(leaf))
        except TypeError:
            raise TraceError(
                f"jit({name}): {_spoken(path)} is {describe(leaf)} of type "
                f"{type(leaf).__name__}, which may change without being noticed. What is not a "
                "tensor is part of the graph's kind and must be hashable. Pass a tensor "
                "(torch.as_tensor(...)), a tuple, or a frozen object."
            ) from None


def _of_tensors(fn: Callable[..., object], call: Call) -> Callable[..., object]:
    """``fn`` as a function of the tensors alone."""
    frame = Frame.of(call.args)

    def of_tensors(*tensors: Tensor) -> object:
        args, kwargs = frame.filled(tensors)
        return fn(*args, **kwargs)

    return of_tensors


def _names(call: Call) -> list[str]:
    """What to call the tensors of a call."""
    leaves = named_leaves(call.args).items()
    return [_spoken(path) for path, leaf in leaves if isinstance(leaf, Tensor)]


def _seen(call: Call) -> list[str]:
    """The leaves of a call in words, for comparison."""
    found = []
    for path, leaf in named_leaves(call.args).items():
        text = describe(leaf)
        if isinstance(leaf, Tensor):
            text += f" with strides {list(leaf.stride())} on {leaf.device}"
        found.append(f"{_spoken(path)} is {text}")
    return found


def _spoken(path: str) -> str:
    """``0/2/weight`` (the third positional argument) in words."""
    kind, _, rest = path.partition("/")
    first, _, below = rest.partition("/")
    name = f"argument {first}" if kind == "0" else f"argument {first!r}"
    return f"{name} at {below}" if below else name
