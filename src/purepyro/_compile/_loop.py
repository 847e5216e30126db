"""A loop over a step, in compiled blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import optree
import torch
from torch import Tensor

from ._backend import compiled
from ._block import block
from ._boundary import is_view, value_of
from ._draws import with_joint_draws
from ._inductor import Run
from ._specialize import Call, Specializations
from ._split import Frontier, Step, frontier, packed
from ._trace import Traced
from ._tuned import tune

S = TypeVar("S")

_LIMIT = 32
# What is known ahead of a block stays near the processor; and the record of a block, which the
# loop copies at each step, small.
_BYTES = 1 << 20
_ROWS = 512
# How long a block may take before the caller hears of it, in seconds.
_PATIENCE = 0.25


class Block(NamedTuple, Generic[S]):
    """Some steps that were taken.

    Attributes:
        state: The state after them.
        recorded: What they recorded, one row a step.
    """

    state: S
    recorded: Tensor


class _Built(NamedTuple):
    """A compiled block of steps."""

    run: Run
    rows: int
    step: Step
    size: int


class Loop(Generic[S]):
    """Takes steps ``state, recorded = step(state, *args, **kwargs)`` without Python in between.

    Args:
        step: A pure function of pytrees of tensors; the new state is like the old one.
    """

    def __init__(self, step: Callable[..., tuple[S, Tensor]]) -> None:
        self._step = step
        name = getattr(step, "__qualname__", type(step).__name__)
        self._built: Specializations[_Built] = Specializations(step, _build, _LIMIT, name)
        self._sizes: Specializations[int] = Specializations(
            step, _largest, _LIMIT, f"{name}, to know its size"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Copies and pickles start without graphs."""
        return Loop, (self._step,)

    def largest(self, state: S, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """How many bytes the largest tensor has that a step makes on its way."""
        return self._sizes.find((state, *args), dict(kwargs))[0]

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
        while count:
            start = time.perf_counter()
            block = self.take(state, min(count, stride), at, args, kwargs)
            taken = len(block.recorded)
            seconds = max(time.perf_counter() - start, 1e-6)
            stride = max(1, min(4 * stride, int(taken * _PATIENCE / seconds)))
            state, at, count = block.state, at + taken, count - taken
            yield block

    def take(
        self, state: S, count: int, at: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Block[S]:
        """Up to ``count`` steps, as many as fit into one block; at least one."""
        built, inputs = self._built.find((state, *args), dict(kwargs))
        first = at % built.rows
        end = min(built.rows, first + count)
        found = list(built.run(torch.tensor(first), torch.tensor(end), *inputs))
        roles = built.step.roles
        leaves = inputs[: built.size]
        for place, value in zip((*roles.counters, *roles.learnt), found, strict=False):
            leaves[place] = value
        trees: Any = optree
        after: S = trees.tree_unflatten(trees.tree_structure(state), leaves)
        return Block(after, found[-1][first:end])


def _build(traced: Traced, inputs: Sequence[Tensor], call: Call) -> _Built:
    trees: Any = optree
    size = len(trees.tree_leaves(call.args[0][0]))
    tune(traced.module.graph)
    step = packed(traced.module.graph, size)
    cut = frontier(step)
    rows = _rows(step, cut)
    try:
        module = block(step, cut, rows)
    except (RuntimeError, NotImplementedError, UserWarning):
        # vmap has no rule for some of the noise: it is made in the loop, step by step.
        step = packed(with_joint_draws(traced.module).graph, size, ahead=False)
        module = block(step, frontier(step), rows)
    examples = [torch.tensor(0), torch.tensor(rows), *inputs]
    return _Built(compiled(module, examples), rows, step, size)


def _largest(traced: Traced, inputs: Sequence[Tensor], _: Call) -> int:
    graph = traced.module.graph
    made = [node for node in graph.nodes if node.op == "call_function" and not is_view(node)]
    values = [value_of(node) for node in made]
    return max((each.nbytes for each in values if isinstance(each, Tensor)), default=0)


def _rows(step: Step, cut: Frontier) -> int:
    """How many steps a block has."""
    per_row = [*cut.ahead, *step.recorded]
    size = sum(value_of(node).numel() * value_of(node).element_size() for node in per_row)
    rows: int = max(1, min(_ROWS, _BYTES // max(size, 1)))
    return rows if rows < 16 else rows // 16 * 16
