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
from ._blocks import Blocks, BlocksByCounters

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
        self._built: Specializations[BlocksByCounters] = Specializations(step, _build, _LIMIT, name)
        self._sizes: Specializations[int] = Specializations(
            step, _largest, _LIMIT, f"{name}, to know its size"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles start without graphs."""
        return Loop, (self._step,)

    def largest(self, state: S, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """How many bytes the largest tensor has that a step makes on its way."""
        return self._sizes.get_or_compile((state, *args), dict(kwargs)).compiled

    def blocks(
        self, state: S, count: int, at: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Block[S]]:
        """``count`` steps, a block at a time.

        Args:
            state: The state before the first step.
            count: How many steps.
            at: The index of the first one: the noise of a step depends, in the last bit, on its
                place in the block, and so has the same place whoever starts where.
            args: Arguments of every step.
            kwargs: The same, by name.
        """
        stride = 1
        cursor = self._enter(state, args, kwargs)
        while count:
            start = time.perf_counter()
            block = cursor.take(min(count, stride), at)
            taken = len(block.recorded)
            seconds = max(time.perf_counter() - start, 1e-6)
            stride = max(1, min(4 * stride, int(taken * _PATIENCE / seconds)))
            at, count = at + taken, count - taken
            yield block
            if count and not cursor.is_current():
                cursor = self._enter(block.state, args, kwargs)

    def take(
        self, state: S, count: int, at: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Block[S]:
        """Up to ``count`` steps, as many as fit into one block; at least one."""
        return self._enter(state, args, kwargs).take(count, at)

    def _enter(self, state: S, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Cursor[S]:
        found = self._built.get_or_compile((state, *args), dict(kwargs))
        return _Cursor(
            found.compiled.at(found.inputs),
            found.inputs,
            structure_of(state),
            partial(found.specialization.is_current, found.inputs),
        )


class _Cursor(Generic[S]):
    """Where a run is; its state is in few tensors until it is asked for."""

    def __init__(
        self,
        blocks: Blocks,
        inputs: list[Tensor],
        structure: PyTreeSpec,
        is_current: Callable[[], bool],
    ) -> None:
        self.is_current = is_current
        self._blocks = blocks
        self._packed = blocks.packed(inputs)
        self._leaves = inputs[: blocks.size]
        self._structure = structure

    def take(self, count: int, at: int) -> Block[S]:
        """Up to ``count`` steps, as many as fit into one block; at least one."""
        recorded, self._packed = self._blocks.take(self._packed, count, at)
        return Block(recorded, partial(self._state, self._packed))

    def _state(self, packed: Sequence[Tensor]) -> S:
        found: Any = self._structure.unflatten(self._blocks.unpacked(packed, self._leaves))
        state: S = found
        return state


def _build(traced: Traced, inputs: Sequence[Tensor], call: Call) -> BlocksByCounters:
    return BlocksByCounters(traced, len(leaves_of(call.args[0][0])))


def _largest(traced: Traced, inputs: Sequence[Tensor], _: Call) -> int:
    graph = traced.module.graph
    made = [node for node in graph.nodes if node.op == "call_function" and not is_view(node)]
    values = [value_of(node) for node in made]
    return max((each.nbytes for each in values if isinstance(each, Tensor)), default=0)
