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
from ..passes._merge_draws import with_merged_draws
from ..passes._pack import join, take
from ..passes._sequence import run_passes
from ._lower import lowered
from ._partition import Cut, StateClasses, Step, cut, depend_on, packed

# What is precomputed for a block stays near the processor; and the record of a block, which the
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
        size: How many tensors the state has.
        checks: Of indices.
    """

    run: Run
    rows: int
    step: Step
    size: int
    checks: Checks

    def packed(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of a step in few tensors: counters, vectors of what is carried, invariants."""
        classes = self.step.classes
        with torch.no_grad():
            vectors = self.step.pack.pack([inputs[i] for i in classes.carried], join)
        counters = [inputs[places[0]] for places in classes.counters]
        return [*counters, *vectors, *(inputs[i] for i in self.step.places)]

    def take(self, packed: Sequence[Tensor], count: int, at: int) -> tuple[Tensor, list[Tensor]]:
        """Up to ``count`` steps: what they recorded, and the packed inputs of the next one.

        Raises:
            OutOfRangeError: If one of them took an index that is out of range.
        """
        first = at % self.rows
        end = min(self.rows, first + count)
        found = list(self.run(torch.tensor(first), torch.tensor(end), *packed))
        moved = len(self.step.counters) + len(self.step.carried)
        for faults in found[moved + 1 :]:  # of each step, or of all
            seen = faults[first:end] if faults.dim() else faults
            if seen.any():
                self.checks.raise_for(int(seen[seen != 0][0]))
        return found[moved][first:end], [*found[:moved], *packed[moved:]]

    def unpacked(self, packed: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
        """The state, of which the tensors that stay the same are among the ``leaves``."""
        found, classes = list(leaves), self.step.classes
        count = len(classes.counters)
        for places, value in zip(classes.counters, packed, strict=False):
            for place, own in zip(places, _copies(value, len(places)), strict=True):
                found[place] = own
        vectors = packed[count : count + len(self.step.carried)]
        carried = self.step.pack.unpack(vectors, take)
        for place, value in zip(classes.carried, carried, strict=True):
            found[place] = value
        return found


class BlocksByCounters:
    """The blocks of a step: compiled anew where other counters of its state are equal.

    Args:
        traced: The step.
        size: How many tensors its state has.
    """

    def __init__(self, traced: Traced, size: int) -> None:
        graph, checks = traced.module.graph, traced.checks
        self._classes = StateClasses.of(graph, size)
        faults = outputs_of(graph)[len(outputs_of(graph)) - len(checks.known) :]
        inputs = inputs_of(graph)
        moving = [inputs[i] for i in (*chain(*self._classes.counters), *self._classes.carried)]
        moves = depend_on(faults, moving)
        alike = [
            [each for each, own in zip(faults, moves, strict=True) if own is kind]
            for kind in (True, False)
        ]
        combine(graph, *alike)
        self._once = int(bool(alike[1]))
        run_passes(graph)
        self._traced = traced
        self._size = size
        self._known: dict[StateClasses, Blocks] = {}

    def at(self, inputs: Sequence[Tensor]) -> Blocks:
        """The blocks for steps from these inputs on."""
        classes = self._classes.at(inputs)
        if classes not in self._known:
            with LOCK:
                if classes not in self._known and len(self._known) >= _LIMIT:
                    classes = self._classes  # which are right for all
                if classes not in self._known:
                    self._known[classes] = self._compiled(classes, inputs)
        return self._known[classes]

    def _compiled(self, classes: StateClasses, inputs: Sequence[Tensor]) -> Blocks:
        graph = self._traced.module.graph
        step = packed(graph, self._size, classes, self._once)
        ends = cut(step)
        rows = _rows(step, ends)
        try:
            module = lowered(step, ends, rows)
        except (RuntimeError, NotImplementedError, UserWarning):
            # vmap has no rule for some of the noise: it is made in the loop, step by step.
            graph = with_merged_draws(self._traced.module).graph
            step = packed(graph, self._size, classes.all_carried(), self._once)
            module = lowered(step, cut(step), rows)
        found = Blocks(module, rows, step, self._size, self._traced.checks)
        examples = [torch.tensor(0), torch.tensor(rows), *found.packed(inputs)]
        return found._replace(run=compiled(module, examples))


def _rows(step: Step, ends: Cut) -> int:
    """How many steps a block has."""
    per_row = [*ends.precomputed, *step.recorded]
    size = sum(value_of(node).numel() * value_of(node).element_size() for node in per_row)
    rows: int = max(1, min(_ROWS, _BYTES // max(size, 1)))
    return rows if rows < 16 else rows // 16 * 16


def _copies(value: Tensor, count: int) -> Sequence[Tensor]:
    """A tensor so many times, each with memory of its own."""
    if count == 1:
        return [value]
    return value.expand(count, *value.shape).clone().unbind()
