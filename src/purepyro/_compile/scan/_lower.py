"""A block of steps as one graph: noise first, then a loop."""

from __future__ import annotations

from operator import getitem

from torch import Tensor, fx

from ..._compat._tracing import aten, is_view, value_of, while_loop
from ..passes._graph import Builder, on_device
from ..passes._materialize import KEPT
from ..passes._pack import Pack
from ._hoist import ahead
from ._partition import Frontier, Step


def block(step: Step, cut: Frontier, rows: int) -> fx.GraphModule:
    """The graph of up to ``rows`` steps.

    Its inputs are the row of the first step and of the one behind the last (0-d int64 tensors on
    the CPU), then those of the packed step. Its outputs are the new counters, the new learnt
    vectors, each recorded tensor of all rows, and what is told once.
    """
    builder = Builder()
    first, end = builder.inputs("row", 2)
    counters = builder.inputs("counter", len(step.counters))
    learnt = builder.inputs("learnt", len(step.learnt))
    fixed = builder.inputs("fixed", len(step.given))
    once = builder.copy(step.graph, cut.once, dict(zip(step.given, fixed, strict=True)))
    loop = _Loop(step, cut, rows)
    noise = builder.inline(ahead(step, cut, loop.noise, rows), [first, *counters, *fixed])
    carried = [builder.call(aten.clone.default, first)]
    carried += [_zeros(builder, rows, value_of(node)) for node in step.recorded]
    carried += [builder.call(aten.clone.default, vector) for vector in learnt]
    others = [end, *(_own(builder, each) for each in (*noise, *loop.once.pack(builder, once)))]
    found = loop.run(builder, carried, others)
    count = 1 + len(step.recorded)
    taken = builder.call(aten.sub.Tensor, end, first)
    counted = [
        builder.call(aten.add.Tensor, each, on_device(builder, taken, value_of(node)))
        for each, node in zip(counters, step.counters, strict=True)
    ]
    told = builder.copy(step.graph, step.once, dict(zip(step.given, fixed, strict=True)))
    return builder.module([*counted, *found[count:], *found[1:count], *told])


def _own(builder: Builder, node: fx.Node) -> fx.Node:
    """A tensor with memory of its own.

    torch 2.13 frees, in the first turn of a loop, what comes to it as a view of another tensor.
    """
    return builder.call(KEPT, node) if is_view(node) else node


class _Loop:
    """The loop of a block."""

    def __init__(self, step: Step, cut: Frontier, rows: int) -> None:
        self._step = step
        self._cut = cut
        self._rows = rows
        self.noise = Pack.of([value_of(node) for node in cut.ahead])
        self.once = Pack.of([value_of(node) for node in cut.once])

    def run(self, builder: Builder, carried: list[fx.Node], others: list[fx.Node]) -> list[fx.Node]:
        """What is carried out of the loop: the row, the records, the learnt vectors."""
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
        row, records, learnt = inputs[0], inputs[1 : 1 + count], inputs[1 + count :]
        rest = builder.inputs("other", others)[1:]
        noise = [
            builder.call(aten.index.Tensor, each, [row]) for each in rest[: len(self.noise.groups)]
        ]
        env = dict(zip(step.learnt, learnt, strict=True))
        env.update(zip(self._cut.ahead, self.noise.unpack(builder, noise), strict=True))
        once = self.once.unpack(builder, rest[len(noise) :])
        env.update(zip(self._cut.once, once, strict=True))
        results = builder.copy(step.graph, step.results, env)
        new, values = results[: len(learnt)], results[len(learnt) :]
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
        seen = value_of(like)
        index = builder.call(aten.arange.default, self._rows, device=seen.device)
        here = builder.call(aten.eq.Tensor, index, on_device(builder, row, seen))
        wide = builder.call(aten.reshape.default, here, [self._rows, *[1] * seen.dim()])
        return builder.call(aten.where.self, wide, value, record)


def _zeros(builder: Builder, rows: int, like: Tensor) -> fx.Node:
    shape = [rows, *like.shape]
    return builder.call(aten.zeros.default, shape, dtype=like.dtype, device=like.device)
