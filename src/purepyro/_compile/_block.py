"""A block of steps as one graph: noise first, then a loop."""

from __future__ import annotations

import warnings
from operator import getitem

import torch
from torch import Tensor, fx

from ._boundary import aten, graph_of, value_of, while_loop
from ._draws import with_joint_draws
from ._graphs import Builder
from ._pack import Pack
from ._split import Frontier, Step, places


def block(step: Step, cut: Frontier, rows: int) -> fx.GraphModule:
    """The graph of up to ``rows`` steps.

    Its inputs are the row of the first step and of the one behind the last (0-d int64 tensors on
    the CPU), then those of the original step. Its outputs are the new counters, the new learnt
    tensors, and each recorded tensor of all rows.
    """
    builder = Builder()
    first, end = builder.inputs("row", 2)
    size = len(step.roles.counters) + len(step.roles.learnt) + len(step.fixed)
    inputs = builder.inputs("input", size)
    counters, learnt = places(inputs, step.roles.counters), places(inputs, step.roles.learnt)
    fixed = places(inputs, step.fixed)
    once = builder.copy(step.graph, cut.once, dict(zip(step.given, fixed, strict=True)))
    noise = builder.inline(_ahead(step, cut, rows), [first, *counters, *fixed])
    loop = _Loop(step, cut, rows)
    carried = [builder.call(aten.clone.default, first)]
    carried += [_zeros(builder, rows, value_of(node)) for node in step.recorded]
    for vector in step.pack.pack(builder, learnt, None):
        carried.append(builder.call(aten.clone.default, vector))
    others = [end, *loop.noise.pack(builder, noise, rows), *loop.once.pack(builder, once, None)]
    found = loop.run(builder, carried, others)
    count = 1 + len(step.recorded)
    taken = builder.call(aten.sub.Tensor, end, first)
    counted = [
        builder.call(aten.add.Tensor, each, _on(builder, taken, value_of(node)))
        for each, node in zip(counters, step.counters, strict=True)
    ]
    new = step.pack.unpack(builder, found[count:])
    own = [builder.call(aten.clone.default, each) for each in new]
    return builder.module([*counted, *own, *found[1:count]])


def _ahead(step: Step, cut: Frontier, rows: int) -> fx.GraphModule:
    """What is known ahead, for all rows: from the first row, the counters there, the fixed."""
    builder = Builder()
    given = [*step.counters, *step.given]
    known = {node: builder.copy_node(node, {}) for node in given}
    single = with_joint_draws(builder.module(builder.copy(step.graph, cut.ahead, known)))
    count = len(step.counters)

    def one(row: Tensor, *inputs: Tensor) -> object:
        return single(*[c + row.to(c.device) for c in inputs[:count]], *inputs[count:])

    def ahead(first: Tensor, *inputs: Tensor) -> object:
        index = torch.arange(rows) - first
        return torch.vmap(one, in_dims=(0, *[None] * len(inputs)))(index, *inputs)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*performance drop.*")
        module = graph_of(ahead, [torch.tensor(0), *(_like(value_of(node)) for node in given)])
    module.graph.eliminate_dead_code()
    return module


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
        here = builder.call(aten.eq.Tensor, index, _on(builder, row, seen))
        wide = builder.call(aten.reshape.default, here, [self._rows, *[1] * seen.dim()])
        return builder.call(aten.where.self, wide, value, record)


def _zeros(builder: Builder, rows: int, like: Tensor) -> fx.Node:
    shape = [rows, *like.shape]
    return builder.call(aten.zeros.default, shape, dtype=like.dtype, device=like.device)


def _on(builder: Builder, node: fx.Node, like: Tensor) -> fx.Node:
    """A 0-d tensor of the CPU on the device of ``like``."""
    if like.device.type == "cpu":
        return node
    return builder.call(aten._to_copy.default, node, device=like.device)


def _like(value: Tensor) -> Tensor:
    """A tensor of the same kind, with any numbers and hardly any memory."""
    return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape)
