"""Compiled blocks of steps, and the state between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from ..._compat._tracing import LOCK, value_of
from .._trace import Traced
from ..inductor._backend import compiled
from ..inductor._inductor import Run
from ..passes._graph import inputs_of, outputs_of
from ..passes._index_checks import Checks, combine
from ..passes._merge_draws import with_joint_draws
from ..passes._sequence import tune
from ._lower import block
from ._partition import Frontier, Roles, Step, follows_from, frontier, packed

# What is known ahead of a block stays near the processor; and the record of a block, which the
# loop copies at each step, small.
_BYTES = 1 << 20
_ROWS = 512
# Which counters are equal changes when somebody puts one back. Each change costs a compilation.
_LIMIT = 4


class Blocks(NamedTuple):
    """Steps in compiled blocks.

    Attributes:
        run: A block, from the graph's inputs to its outputs.
        rows: How many steps a block has.
        step: The step.
        size: How many tensors the state is.
        checks: Of indices.
    """

    run: Run
    rows: int
    step: Step
    size: int
    checks: Checks

    def packed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of a step in few tensors: counters, vectors of what is learnt, fixed ones."""
        roles = self.step.roles
        with torch.no_grad():
            vectors = self.step.pack.joined([inputs[i] for i in roles.learnt])
        counters = [inputs[places[0]] for places in roles.counters]
        return [*counters, *vectors, *(inputs[i] for i in self.step.fixed)]

    def take(self, carried: Sequence[Tensor], count: int, at: int) -> tuple[Tensor, list[Tensor]]:
        """Up to ``count`` steps: what they recorded, and the packed inputs of the next one.

        Raises:
            OutOfRangeError: If one of them took an index that is out of range.
        """
        first = at % self.rows
        end = min(self.rows, first + count)
        found = list(self.run(torch.tensor(first), torch.tensor(end), *carried))
        moved = len(self.step.counters) + len(self.step.learnt)
        for numbers in found[moved + 1 :]:  # of each step, or of all
            seen = numbers[first:end] if numbers.dim() else numbers
            if seen.any():
                self.checks.raise_for(int(seen[seen != 0][0]))
        return found[moved][first:end], [*found[:moved], *carried[moved:]]

    def unpacked(self, carried: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
        """The state, of which the tensors that stay the same are among the ``leaves``."""
        found, roles = list(leaves), self.step.roles
        count = len(roles.counters)
        for places, value in zip(roles.counters, carried, strict=False):
            for place, own in zip(places, _copies(value, len(places)), strict=True):
                found[place] = own
        vectors = carried[count : count + len(self.step.learnt)]
        for place, value in zip(roles.learnt, self.step.pack.parted(vectors), strict=True):
            found[place] = value
        return found


class ByCounters:
    """The blocks of a step: compiled anew where other counters of its state are equal.

    Args:
        traced: The step.
        size: How many tensors its state is.
    """

    def __init__(self, traced: Traced, size: int) -> None:
        graph, checks = traced.module.graph, traced.checks
        self._roles = Roles.of(graph, size)
        numbers = outputs_of(graph)[len(outputs_of(graph)) - len(checks.known) :]
        inputs = inputs_of(graph)
        moving = [inputs[i] for i in (*chain(*self._roles.counters), *self._roles.learnt)]
        moves = follows_from(numbers, moving)
        alike = [
            [each for each, own in zip(numbers, moves, strict=True) if own is kind]
            for kind in (True, False)
        ]
        combine(graph, *alike)
        self._told = int(bool(alike[1]))
        tune(graph)
        self._traced = traced
        self._size = size
        self._known: dict[Roles, Blocks] = {}

    def at(self, inputs: Sequence[Tensor]) -> Blocks:
        """The blocks for steps from these inputs on."""
        roles = self._roles.at(inputs)
        if roles not in self._known:
            with LOCK:
                if roles not in self._known and len(self._known) >= _LIMIT:
                    roles = self._roles  # which are right for all
                if roles not in self._known:
                    self._known[roles] = self._compiled(roles, inputs)
        return self._known[roles]

    def _compiled(self, roles: Roles, inputs: Sequence[Tensor]) -> Blocks:
        graph = self._traced.module.graph
        step = packed(graph, self._size, roles, self._told)
        cut = frontier(step)
        rows = _rows(step, cut)
        try:
            module = block(step, cut, rows)
        except (RuntimeError, NotImplementedError, UserWarning):
            # vmap has no rule for some of the noise: it is made in the loop, step by step.
            graph = with_joint_draws(self._traced.module).graph
            step = packed(graph, self._size, roles.in_the_loop(), self._told)
            module = block(step, frontier(step), rows)
        found = Blocks(module, rows, step, self._size, self._traced.checks)
        examples = [torch.tensor(0), torch.tensor(rows), *found.packed(inputs)]
        return found._replace(run=compiled(module, examples))


def _rows(step: Step, cut: Frontier) -> int:
    """How many steps a block has."""
    per_row = [*cut.ahead, *step.recorded]
    size = sum(value_of(node).numel() * value_of(node).element_size() for node in per_row)
    rows: int = max(1, min(_ROWS, _BYTES // max(size, 1)))
    return rows if rows < 16 else rows // 16 * 16


def _copies(value: Tensor, count: int) -> Sequence[Tensor]:
    """A tensor so many times, each with memory of its own."""
    if count == 1:
        return [value]
    return value.expand(count, *value.shape).clone().unbind()
