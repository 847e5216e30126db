"""A loop over a step, in compiled blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from optree import PyTreeSpec
from torch import Tensor

from ..._compat._tracing import is_view, value_of
from ..._core._lazy import Lazy
from ..._core._trees import leaves_of, structure_of
from .._cache import Call, Specializations
from .._trace import Traced
from ._blocks import Blocks, ByCounters

S = TypeVar("S")

_LIMIT = 32
# How long a block may take before the caller hears of it, in seconds.
_PATIENCE = 0.25


class Block(Generic[S]):
    """Some steps that were taken.

    Args:
        recorded: What they recorded, one row a step.
        state: Puts together the state after them.
    """

    def __init__(self, recorded: Tensor, state: Callable[[], S]) -> None:
        self.recorded = recorded
        self._state = state

    @classmethod
    def of(cls, state: S, recorded: Tensor) -> Block[S]:
        """Steps after which the state is this one."""
        return cls(recorded, lambda: state)

    @Lazy
    def state(self) -> S:
        """The state after them, which is put together when it is asked for."""
        return self._state()


class Loop(Generic[S]):
    """Takes steps ``state, recorded = step(state, *args, **kwargs)`` without Python in between.

    Args:
        step: A pure function of pytrees of tensors; the new state is like the old one.
    """

    def __init__(self, step: Callable[..., tuple[S, Tensor]]) -> None:
        self._step = step
        name = getattr(step, "__qualname__", type(step).__name__)
        self._built: Specializations[ByCounters] = Specializations(step, _build, _LIMIT, name)
        self._sizes: Specializations[int] = Specializations(
            step, _largest, _LIMIT, f"{name}, to know its size"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles start without graphs."""
        return Loop, (self._step,)

    def largest(self, state: S, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """How many bytes the largest tensor has that a step makes on its way."""
        return self._sizes.find((state, *args), dict(kwargs)).built

    def blocks(
        self, state: S, count: int, at: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Block[S]]:
        """``count`` steps, a block at a time.

        Args:
            state: The state before the first step.
            count: How many steps.
            at: The number of the first one: the noise of a step depends, in the last bit, on its
                place in the block, and so has the same place whoever starts where.
            args: Arguments of every step.
            kwargs: The same, by name.
        """
        stride = 1
        on_way = self._enter(state, args, kwargs)
        while count:
            start = time.perf_counter()
            block = on_way.take(min(count, stride), at)
            taken = len(block.recorded)
            seconds = max(time.perf_counter() - start, 1e-6)
            stride = max(1, min(4 * stride, int(taken * _PATIENCE / seconds)))
            at, count = at + taken, count - taken
            yield block
            if count and not on_way.still():
                on_way = self._enter(block.state, args, kwargs)

    def take(
        self, state: S, count: int, at: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Block[S]:
        """Up to ``count`` steps, as many as fit into one block; at least one."""
        return self._enter(state, args, kwargs).take(count, at)

    def _enter(self, state: S, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _OnWay[S]:
        found = self._built.find((state, *args), dict(kwargs))
        return _OnWay(
            found.built.at(found.inputs),
            found.inputs,
            structure_of(state),
            partial(found.kind.still, found.inputs),
        )


class _OnWay(Generic[S]):
    """A run on its way, whose state is in few tensors until it is asked for."""

    def __init__(
        self, of: Blocks, inputs: list[Tensor], structure: PyTreeSpec, still: Callable[[], bool]
    ) -> None:
        self.still = still
        self._blocks = of
        self._carried = of.packed(inputs)
        self._leaves = inputs[: of.size]
        self._structure = structure

    def take(self, count: int, at: int) -> Block[S]:
        """Up to ``count`` steps, as many as fit into one block; at least one."""
        recorded, self._carried = self._blocks.take(self._carried, count, at)
        return Block(recorded, partial(self._state, self._carried))

    def _state(self, carried: Sequence[Tensor]) -> S:
        found: Any = self._structure.unflatten(self._blocks.unpacked(carried, self._leaves))
        state: S = found
        return state


def _build(traced: Traced, inputs: Sequence[Tensor], call: Call) -> ByCounters:
    return ByCounters(traced, len(leaves_of(call.args[0][0])))


def _largest(traced: Traced, inputs: Sequence[Tensor], _: Call) -> int:
    graph = traced.module.graph
    made = [node for node in graph.nodes if node.op == "call_function" and not is_view(node)]
    values = [value_of(node) for node in made]
    return max((each.nbytes for each in values if isinstance(each, Tensor)), default=0)
