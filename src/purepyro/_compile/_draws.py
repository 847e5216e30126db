"""Independent draws of a graph, made in one.

Each draw is a node (:mod:`purepyro.random._bits._nodes`) that becomes some 150 operations. Nodes
that do not wait for one another are joined: for a guide of any number of sites one node makes all
keys, and one all numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from operator import getitem
from typing import Any, TypeAlias

from torch import fx

from ..random._bits._nodes import OPERATOR
from ._boundary import aten, value_of
from ._graphs import Builder, inputs_of, outputs_of

# For each node of the old graph the new one, or the list of a joined draw's lanes.
Env: TypeAlias = dict[fx.Node, Any]


def with_joint_draws(module: fx.GraphModule) -> fx.GraphModule:
    """The same function, in which draws that do not wait for one another are one."""
    graph, builder = module.graph, Builder()
    env: Env = {node: builder.copy_node(node, {}) for node in inputs_of(graph)}
    depth = _depths(graph)
    inner = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    for level in range(max(depth.values(), default=0) + 1):
        here = [node for node in inner if depth[node] == level]
        draws: dict[object, list[fx.Node]] = {}
        for node in here:
            if node.target is OPERATOR:
                draws.setdefault(node.args[3], []).append(node)
        for members in draws.values():
            _join(builder, members, env)
        for node in here:
            if node.target is not OPERATOR:
                env[node] = _copied(builder, node, env)
    return builder.module([env[node] for node in outputs_of(graph)])


def _depths(graph: fx.Graph) -> dict[fx.Node, int]:
    """How many draws a node waits for, one after another, itself included."""
    depth: dict[fx.Node, int] = {}
    for node in graph.nodes:
        below = max((depth[each] for each in node.all_input_nodes), default=0)
        depth[node] = below + (node.target is OPERATOR)
    return depth


def _copied(builder: Builder, node: fx.Node, env: Env) -> fx.Node:
    """A node in the new graph; the lanes of a joined draw are in a list already."""
    source, *rest = node.args if node.target is getitem else (None,)
    lanes = env.get(source) if isinstance(source, fx.Node) else None
    if isinstance(lanes, list):
        place: Any = rest[0]
        found: fx.Node = lanes[place]
        return found
    return builder.copy_node(node, env)


def _join(builder: Builder, members: list[fx.Node], env: Env) -> None:
    """One draw in place of several, and the slices of its lanes in place of theirs."""
    if len(members) == 1:
        env[members[0]] = builder.copy_node(members[0], env)
        return
    call: Callable[..., fx.Node] = builder.call
    shapes = [tuple(value_of(member)[0].shape) for member in members]
    parts: list[list[fx.Node]] = [[], [], []]  # seeds, offsets, indices
    for member, shape in zip(members, shapes, strict=True):
        arguments: Any = member.args[:3]
        for part, argument in zip(parts, arguments, strict=True):
            wide = call(aten.expand.default, env[argument], list(shape))
            part.append(call(aten.reshape.default, wide, [prod(shape)]))
    whole = [call(aten.cat.default, part) for part in parts]
    drawn = call(OPERATOR, *whole, members[0].args[3])
    lanes = [call(getitem, drawn, i) for i in range(len(value_of(members[0])))]
    start = 0
    for member, shape in zip(members, shapes, strict=True):
        stop = start + prod(shape)
        env[member] = [
            call(aten.reshape.default, call(aten.slice.Tensor, lane, 0, start, stop), list(shape))
            for lane in lanes
        ]
        start = stop
