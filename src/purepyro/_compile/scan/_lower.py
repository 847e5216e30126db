"""A block of steps as one graph: what is precomputed, then a loop."""

from __future__ import annotations

from operator import getitem

from torch import Tensor, fx

from ..._compat._tracing import aten, is_view, value_of, while_loop
from ..passes._graph import Builder, on_device
from ..passes._materialize import MATERIALIZE
from ..passes._pack import Pack
from ._hoist import precomputed
from ._partition import Cut, Step


def lowered(step: Step, cut: Cut, rows: int) -> fx.GraphModule:
    """The graph of up to ``rows`` steps.

    Its inputs are the row of the first step and of the one behind the last (0-d int64 tensors on
    the CPU), then those of the packed step. Its outputs are the new counters, the new carried
    vectors, each recorded tensor of all rows, and what is invariant.
    """
    builder = Builder()
    first, end = builder.inputs("row", 2)
    counters = builder.inputs("counter", len(step.counters))
    vectors = builder.inputs("carried", len(step.carried))
    invariants = builder.inputs("invariant", len(step.invariants))
    known = dict(zip(step.invariants, invariants, strict=True))
    loop = _Loop(step, cut, rows)
    matrices = precomputed(step, cut, loop.precomputed, rows)
    rest = builder.inline(matrices, [first, *counters, *invariants])
    rest += loop.invariant.pack(builder.copy(step.graph, cut.invariant, known), builder.join)
    carried = [builder.call(aten.clone.default, first)]
    carried += [_zeros(builder, rows, value_of(node)) for node in step.recorded]
    carried += [builder.call(aten.clone.default, vector) for vector in vectors]
    found = loop.run(builder, carried, [end, *(_owned(builder, each) for each in rest)])
    count = 1 + len(step.recorded)
    taken = builder.call(aten.sub.Tensor, end, first)
    counted = [
        builder.call(aten.add.Tensor, each, on_device(builder, taken, value_of(node)))
        for each, node in zip(counters, step.counters, strict=True)
    ]
    once = builder.copy(step.graph, step.once, known)
    return builder.module([*counted, *found[count:], *found[1:count], *once])


def _owned(builder: Builder, node: fx.Node) -> fx.Node:
    """A tensor with memory of its own.

    torch 2.13 frees, in a loop's first iteration, what comes to it as a view of another tensor.
    """
    return builder.call(MATERIALIZE, node) if is_view(node) else node


class _Loop:
    """The loop of a block."""

    def __init__(self, step: Step, cut: Cut, rows: int) -> None:
        self._step = step
        self._cut = cut
        self._rows = rows
        self.precomputed = Pack.of([value_of(node) for node in cut.precomputed])
        self.invariant = Pack.of([value_of(node) for node in cut.invariant])

    def run(self, builder: Builder, carried: list[fx.Node], others: list[fx.Node]) -> list[fx.Node]:
        """What is carried out of the loop: the row, the records, the carried vectors."""
        sizes = len(carried), len(others)
        condition = builder.hold("condition", self._condition(*sizes))
        body = builder.hold("body", self._body(*sizes))
        found = builder.call(while_loop(), condition, body, tuple(carried), tuple(others))
        return [builder.call(getitem, found, i) for i in range(len(carried))]

    def _condition(self, carried: int, others: int) -> fx.GraphModule:
        """Whether there is a row left."""
        builder = Builder()
        inputs = builder.inputs("carried", carried) + builder.inputs("other", others)
        return builder.module(builder.call(aten.lt.Tensor, inputs[0], inputs[carried]))

    def _body(self, carried: int, others: int) -> fx.GraphModule:
        """One step."""
        builder, step, count = Builder(), self._step, len(self._step.recorded)
        inputs = builder.inputs("carried", carried)
        row, records, vectors = inputs[0], inputs[1 : 1 + count], inputs[1 + count :]
        rest = builder.inputs("other", others)[1:]
        rows = [
            builder.call(aten.index.Tensor, matrix, [row])
            for matrix in rest[: len(self.precomputed.groups)]
        ]
        env = dict(zip(step.carried, vectors, strict=True))
        known = self.precomputed.unpack(rows, builder.take)
        env.update(zip(self._cut.precomputed, known, strict=True))
        known = self.invariant.unpack(rest[len(rows) :], builder.take)
        env.update(zip(self._cut.invariant, known, strict=True))
        results = builder.copy(step.graph, [*step.new, *step.recorded], env)
        new, values = results[: len(vectors)], results[len(vectors) :]
        recorded = [
            self._record(builder, row, *each)
            for each in zip(records, values, step.recorded, strict=True)
        ]
        after = builder.call(aten.add.Tensor, row, 1)
        # A loop may not hand on what it was given, unchanged.
        own = [
            builder.call(aten.clone.default, each) if each.op == "placeholder" else each
            for each in new
        ]
        return builder.module([after, *recorded, *own])

    def _record(
        self, builder: Builder, row: fx.Node, record: fx.Node, value: fx.Node, like: fx.Node
    ) -> fx.Node:
        """The record, with ``value`` in the row of this step."""
        known = value_of(like)
        index = builder.call(aten.arange.default, self._rows, device=known.device)
        here = builder.call(aten.eq.Tensor, index, on_device(builder, row, known))
        wide = builder.call(aten.reshape.default, here, [self._rows, *[1] * known.dim()])
        return builder.call(aten.where.self, wide, value, record)


def _zeros(builder: Builder, rows: int, like: Tensor) -> fx.Node:
    shape = [rows, *like.shape]
    return builder.call(aten.zeros.default, shape, dtype=like.dtype, device=like.device)
