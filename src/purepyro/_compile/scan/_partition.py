"""What of a step needs the step before it, and what does not.

In a loop ``state, loss = step(state, *args)`` some of the state never changes (the key), some only
counts (the number of the step, Adam's), the rest is learnt. What follows from the first is computed
once. What follows from the counters too, above all the noise of every step, is known ahead: a block
of steps gets it in one vectorised computation. Only the rest has to wait its turn, in the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain, compress
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, is_view, value_of
from ..passes._graph import Builder, Env, in_order, inputs_of, needed_by, outputs_of
from ..passes._horizontal import Joiner
from ..passes._horizontal_sums import join_sums
from ..passes._pack import Pack


class Role(IntEnum):
    """What a tensor of a step waits for."""

    FIXED = 0
    COUNTED = 1
    LEARNT = 2


class Roles(NamedTuple):
    """The places in a step's state, by what becomes of them.

    Attributes:
        counters: What counts: together the places of one and the same number.
        learnt: What is learnt.
    """

    counters: tuple[tuple[int, ...], ...]
    learnt: tuple[int, ...]

    @classmethod
    def of(cls, graph: fx.Graph, size: int) -> Roles:
        """Of a step whose first ``size`` inputs and outputs are the state."""
        inputs, outputs = inputs_of(graph), outputs_of(graph)
        changed = [i for i in range(size) if outputs[i] is not inputs[i]]
        counters = [i for i in changed if _counts(inputs[i], outputs[i])]
        return cls(tuple((i,) for i in counters), tuple(i for i in changed if i not in counters))

    def in_the_loop(self) -> Roles:
        """The same where nothing can be known ahead, and counters are as good as learnt."""
        return Roles((), tuple(sorted([*chain(*self.counters), *self.learnt])))

    def at(self, state: Sequence[Tensor]) -> Roles:
        """The same, with counters together that are equal, and so will ever be.

        An optimiser counts its steps for each parameter; one count is enough to tell what follows.
        """
        left, classes = list(chain(*self.counters)), []
        while left:
            equal = _equal(state[left[0]], [state[i] for i in left])
            classes.append(tuple(compress(left, equal)))
            left = [i for i, same in zip(left, equal, strict=True) if not same]
        return self._replace(counters=tuple(classes))


@attrs.frozen
class Step:
    """A step on packed tensors.

    Attributes:
        graph: From counters, learnt vectors and fixed tensors to new vectors and records.
        roles: Of the original state.
        fixed: The places of the fixed tensors among the original inputs.
        pack: How the learnt tensors lie in the vectors.
        told: How many outputs at the end follow from fixed tensors, and are told once a block.
    """

    graph: fx.Graph
    roles: Roles
    fixed: tuple[int, ...]
    pack: Pack
    told: int = 0

    @property
    def counters(self) -> list[fx.Node]:
        """The inputs that count."""
        return inputs_of(self.graph)[: len(self.roles.counters)]

    @property
    def learnt(self) -> list[fx.Node]:
        """The inputs that are learnt."""
        start = len(self.roles.counters)
        return inputs_of(self.graph)[start : start + len(self.pack.groups)]

    @property
    def given(self) -> list[fx.Node]:
        """The inputs that are fixed."""
        return inputs_of(self.graph)[len(self.roles.counters) + len(self.pack.groups) :]

    @property
    def results(self) -> list[fx.Node]:
        """The new vectors, then what is recorded."""
        outputs = outputs_of(self.graph)
        return outputs[: len(outputs) - self.told]

    @property
    def once(self) -> list[fx.Node]:
        """What is told once a block."""
        return outputs_of(self.graph)[len(self.results) :]

    @property
    def recorded(self) -> list[fx.Node]:
        """What is recorded of each step."""
        return self.results[len(self.pack.groups) :]


def packed(graph: fx.Graph, size: int, roles: Roles, told: int = 0) -> Step:
    """A step, with its learnt state in few vectors, and the same done to all of one at once.

    Args:
        graph: The step, whose first ``size`` inputs and outputs are the state.
        size: How many tensors the state is.
        roles: Of the state.
        told: How many of the last outputs follow from fixed tensors.
    """
    inputs, outputs = inputs_of(graph), outputs_of(graph)
    moving = {*chain(*roles.counters), *roles.learnt}
    fixed = tuple(i for i in range(len(inputs)) if i not in moving)
    pack = Pack.of([value_of(inputs[i]) for i in roles.learnt])
    builder = Builder()
    joiner = Joiner(builder)
    env: Env = {}
    for places in roles.counters:
        counter = builder.copy_node(inputs[places[0]], {})
        env.update({inputs[i]: counter for i in places})
    vectors = builder.inputs("learnt", len(pack.groups))
    env.update({inputs[i]: builder.copy_node(inputs[i], {}) for i in fixed})
    learnt = [inputs[i] for i in roles.learnt]
    for vector, members in zip(vectors, pack.groups, strict=True):
        value = value_of(learnt[members[0]])
        if len(members) == 1:
            vector.meta["val"] = value
            env[learnt[members[0]]] = vector
            continue
        vector.meta["val"] = value.new_empty([sum(map(pack.count, members))])
        start = 0
        for i in members:
            env[learnt[i]] = joiner.piece(vector, start, pack.shapes[i])
            start += pack.count(i)
    wanted = [outputs[i] for i in roles.learnt]
    found = builder.copy(graph, [*wanted, *outputs[size:]], env)
    new = [
        found[members[0]] if len(members) == 1 else joiner.joined([found[i] for i in members])
        for members in pack.groups
    ]
    builder.graph.output((*new, *found[len(wanted) :]))
    join_sums(builder, joiner)
    joiner.share(outputs_of(builder.graph))
    return Step(in_order(builder.graph), roles, fixed, pack, told)


class Frontier(NamedTuple):
    """What the loop of a step takes from outside: results known once, and results known ahead."""

    once: list[fx.Node]
    ahead: list[fx.Node]


def follows_from(outputs: Sequence[fx.Node], inputs: Iterable[fx.Node]) -> list[bool]:
    """Which of some outputs follow from one of these inputs."""
    given = set(inputs)
    return [not given.isdisjoint(needed_by([output], ())) for output in outputs]


def frontier(step: Step) -> Frontier:
    """Where a step's graph is cut: what the loop uses of what is known before it."""
    kinds = dict.fromkeys(step.given, Role.FIXED)
    kinds.update(dict.fromkeys(step.counters, Role.COUNTED))
    kinds.update(dict.fromkeys(step.learnt, Role.LEARNT))
    for node in step.graph.nodes:
        if node.op == "call_function":
            kinds[node] = max((kinds[each] for each in node.all_input_nodes), default=Role.FIXED)
    used = set(step.results)
    for node in needed_by(step.results, inputs_of(step.graph)):
        if kinds[node] == Role.LEARNT:
            used.update(node.all_input_nodes)
    cut = {_narrowest(node) for node in used if kinds[node] != Role.LEARNT}
    nodes = [node for node in step.graph.nodes if node in cut]
    return Frontier(
        [node for node in nodes if kinds[node] == Role.FIXED],
        [node for node in nodes if kinds[node] == Role.COUNTED],
    )


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
    if one.target is not aten._to_copy.default:
        return False
    test: Any = one.args[0]
    return bool(test.target is aten.ne.Scalar and test.args[0] is counter and test.args[1] >= 2**31)
