"""What of a step waits for the step before it, and what does not.

In a loop ``state, loss = step(state, *args)`` some of the state is invariant (the key), some counts
(the number of the step, Adam's), the rest is carried from step to step. What follows from the
invariants is computed once. What follows from the counters too, above all the noise of every
step, is precomputed for a block of steps in one vectorised computation. Only the rest is left in
the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain, compress
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..._compat._tracing import TO_COPY, aten, is_view, value_of
from ..passes._graph import Builder, Env, inputs_of, needed_by, outputs_of, sort
from ..passes._horizontal import HorizontalFuser
from ..passes._horizontal_sums import fuse_sums
from ..passes._pack import Pack, join


class CarryClass(IntEnum):
    """What a tensor of a step waits for."""

    INVARIANT = 0
    INDUCTION = 1
    CARRIED = 2


class StateClasses(NamedTuple):
    """The places of the tensors of a step's state, by carry class; the others are invariant.

    Attributes:
        counters: Induction variables; the places of equal ones together.
        carried: What each step computes anew.
    """

    counters: tuple[tuple[int, ...], ...]
    carried: tuple[int, ...]

    @classmethod
    def of(cls, graph: fx.Graph, size: int) -> StateClasses:
        """Of a step whose first ``size`` inputs and outputs are the state."""
        inputs, outputs = inputs_of(graph), outputs_of(graph)
        changed = [i for i in range(size) if outputs[i] is not inputs[i]]
        counters = [i for i in changed if _counts(inputs[i], outputs[i])]
        return cls(tuple((i,) for i in counters), tuple(i for i in changed if i not in counters))

    def all_carried(self) -> StateClasses:
        """The same where nothing can be precomputed, and counters are carried like all else."""
        return StateClasses((), tuple(sorted([*chain(*self.counters), *self.carried])))

    def at(self, state: Sequence[Tensor]) -> StateClasses:
        """The same with counters together that are equal, and so will ever be.

        An optimiser counts its steps for each parameter. One count tells all that follows.
        """
        left, classes = list(chain(*self.counters)), []
        while left:
            equal = _equal(state[left[0]], [state[i] for i in left])
            classes.append(tuple(compress(left, equal)))
            left = [i for i, same in zip(left, equal, strict=True) if not same]
        return self._replace(counters=tuple(classes))


class Step(NamedTuple):
    """A step on packed tensors, and what its nodes are.

    Attributes:
        graph: From counters, carried vectors and invariants to new vectors and records.
        classes: Of the original state.
        pack: How the carried tensors lie in the vectors.
        places: Of the invariants, among the original inputs.
        counters: The inputs that count.
        carried: The inputs that are carried.
        invariants: The inputs that are invariant.
        new: The new vectors.
        recorded: What is recorded of each step.
        once: Outputs that follow from invariants: a block returns them once.
    """

    graph: fx.Graph
    classes: StateClasses
    pack: Pack
    places: tuple[int, ...]
    counters: list[fx.Node]
    carried: list[fx.Node]
    invariants: list[fx.Node]
    new: list[fx.Node]
    recorded: list[fx.Node]
    once: list[fx.Node]


def packed(graph: fx.Graph, size: int, classes: StateClasses, once: int = 0) -> Step:
    """A step, with its carried state in few vectors.

    Args:
        graph: The step, whose first ``size`` inputs and outputs are the state.
        size: How many tensors the state has.
        classes: Of the state.
        once: How many of the last outputs follow from invariants.
    """
    inputs, outputs = inputs_of(graph), outputs_of(graph)
    moving = {*chain(*classes.counters), *classes.carried}
    places = tuple(i for i in range(len(inputs)) if i not in moving)
    values = [value_of(inputs[i]) for i in classes.carried]
    pack = Pack.of(values)
    builder = Builder()
    env: Env = {}
    counters = [builder.copy_node(inputs[equal[0]], {}) for equal in classes.counters]
    for equal, counter in zip(classes.counters, counters, strict=True):
        env.update({inputs[i]: counter for i in equal})
    vectors = builder.inputs("carried", len(pack.groups))
    invariants = [builder.copy_node(inputs[i], {}) for i in places]
    env.update(zip([inputs[i] for i in places], invariants, strict=True))
    for vector, value in zip(vectors, pack.pack(values, join), strict=True):
        vector.meta["val"] = value
    carried = pack.unpack(vectors, builder.take)
    env.update(zip([inputs[i] for i in classes.carried], carried, strict=True))
    wanted = [outputs[i] for i in classes.carried]
    found = builder.copy(graph, [*wanted, *outputs[size:]], env)
    fuser = HorizontalFuser(builder)
    new = pack.pack(found[: len(wanted)], fuser.joined)
    builder.graph.output((*new, *found[len(wanted) :]))
    fuse_sums(builder, fuser)
    fuser.share(outputs_of(builder.graph))
    sort(builder.graph)
    outputs = outputs_of(builder.graph)
    new, others = outputs[: len(new)], outputs[len(new) :]
    last = len(others) - once
    nodes = counters, vectors, invariants, new, others[:last], others[last:]
    return Step(builder.graph, classes, pack, places, *nodes)


class Cut(NamedTuple):
    """What the loop of a step takes from outside."""

    invariant: list[fx.Node]
    precomputed: list[fx.Node]


def cut(step: Step) -> Cut:
    """Where a step's graph is cut: what the loop uses of what is known before it."""
    kinds = dict.fromkeys(step.invariants, CarryClass.INVARIANT)
    kinds.update(dict.fromkeys(step.counters, CarryClass.INDUCTION))
    kinds.update(dict.fromkeys(step.carried, CarryClass.CARRIED))
    for node in step.graph.nodes:
        if node.op == "call_function":
            below = (kinds[each] for each in node.all_input_nodes)
            kinds[node] = max(below, default=CarryClass.INVARIANT)
    results = [*step.new, *step.recorded]
    used = set(results)
    for node in needed_by(results, inputs_of(step.graph)):
        if kinds[node] == CarryClass.CARRIED:
            used.update(node.all_input_nodes)
    ends = {_narrowest(node) for node in used if kinds[node] != CarryClass.CARRIED}
    nodes = [node for node in step.graph.nodes if node in ends]
    return Cut(
        [node for node in nodes if kinds[node] == CarryClass.INVARIANT],
        [node for node in nodes if kinds[node] == CarryClass.INDUCTION],
    )


def depend_on(outputs: Sequence[fx.Node], inputs: Iterable[fx.Node]) -> list[bool]:
    """Which of some outputs depend on one of these inputs."""
    given = set(inputs)
    return [not given.isdisjoint(needed_by([output], ())) for output in outputs]


def _narrowest(node: fx.Node) -> fx.Node:
    """The node that ``node`` shows at a larger size, or in another shape, for free."""
    while is_view(node) and len(node.all_input_nodes) == 1:
        below = node.all_input_nodes[0]
        if value_of(node).numel() < value_of(below).numel():
            break
        node = below
    return node


def _equal(one: Tensor, others: Sequence[Tensor]) -> list[bool]:
    """Which of some tensors are equal to one; a GPU is asked once."""
    kind = one.shape, one.dtype, one.device
    alike = [(each.shape, each.dtype, each.device) == kind for each in others]
    stacked = torch.stack(list(compress(others, alike)))
    same = (stacked == one).reshape(len(stacked), one.numel())
    found = iter(same.all(1).tolist())
    return [each and next(found) for each in alike]


def _counts(before: fx.Node, after: fx.Node) -> bool:
    """Whether ``after`` is ``before + 1``, also as optimisers write it that fear an overflow."""
    if after.target is not aten.add.Tensor or after.args[0] is not before:
        return False
    if len(after.args) != 2 or after.kwargs:
        return False
    one: Any = after.args[1]
    return _is_one_unless_full(one, before) if isinstance(one, fx.Node) else bool(one == 1)


def _is_one_unless_full(one: fx.Node, counter: fx.Node) -> bool:
    """``(counter != largest).to(int64)``: one, for all counts that a loop will ever reach."""
    if one.target is not TO_COPY:
        return False
    test: Any = one.args[0]
    return bool(test.target is aten.ne.Scalar and test.args[0] is counter and test.args[1] >= 2**31)
