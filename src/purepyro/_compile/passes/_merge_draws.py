"""Independent draws of a graph, made in one.

Each draw is a node (:mod:`purepyro.random._bits._philox_operators`) that becomes some 150
operations. Nodes
that do not wait for one another are joined: for a guide of any number of sites one node makes all
keys, and one all numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from torch import fx

from ..._compat._tracing import aten, value_of
from ...random._bits._philox_operators import OPERATOR
from ._graph import Builder, Env, inputs_of, outputs_of


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
                draws.setdefault(node.args[2], []).append(node)
        for members in draws.values():
            _join(builder, members, env)
        for node in here:
            if node.target is not OPERATOR:
                env[node] = builder.copy_node(node, env)
    return builder.module([env[node] for node in outputs_of(graph)])


def _depths(graph: fx.Graph) -> dict[fx.Node, int]:
    """How many draws a node waits for, one after another, itself included."""
    depth: dict[fx.Node, int] = {}
    for node in graph.nodes:
        below = max((depth[each] for each in node.all_input_nodes), default=0)
        depth[node] = below + (node.target is OPERATOR)
    return depth


def _join(builder: Builder, members: list[fx.Node], env: Env) -> None:
    """One draw in place of several, and its slices in place of theirs."""
    if len(members) == 1:
        env[members[0]] = builder.copy_node(members[0], env)
        return
    call: Callable[..., fx.Node] = builder.call
    shapes = [tuple(value_of(member).shape) for member in members]
    index = call(aten.cat.default, [_indices(builder, m, env) for m in members])
    key = _shared_key(members)
    if key is None:
        index = call(aten.reshape.default, index, [-1, 1])
        drawn = call(OPERATOR, _keys(builder, members, env), index, members[0].args[2])
    else:
        drawn = call(OPERATOR, env[key], index, members[0].args[2])
    lanes = call(aten.reshape.default, drawn, [-1, shapes[0][-1]])
    start = 0
    for member, shape in zip(members, shapes, strict=True):
        stop = start + prod(shape[:-1])
        part = call(aten.slice.Tensor, lanes, 0, start, stop)
        env[member] = call(aten.reshape.default, part, list(shape))
        start = stop


def _shared_key(members: list[fx.Node]) -> fx.Node | None:
    """The single key from which all draw, if it is one."""
    keys: list[Any] = [member.args[0] for member in members]
    shared = all(key is keys[0] for key in keys) and value_of(keys[0]).dim() == 1
    return keys[0] if shared else None


def _keys(builder: Builder, members: list[fx.Node], env: Env) -> fx.Node:
    """The keys of all blocks, one below another."""
    call: Callable[..., fx.Node] = builder.call
    parts = []
    for member in members:
        key: Any = member.args[0]
        blocks = list(value_of(member).shape[:-1])
        wide = call(aten.expand.default, call(aten.unsqueeze.default, env[key], -2), [*blocks, 2])
        parts.append(call(aten.reshape.default, wide, [prod(blocks), 2]))
    return call(aten.cat.default, parts)


def _indices(builder: Builder, member: fx.Node, env: Env) -> fx.Node:
    """Which blocks a draw takes, one below another."""
    index: Any = member.args[1]
    blocks = list(value_of(member).shape[:-1])
    wide = builder.call(aten.expand.default, env[index], blocks)
    return builder.call(aten.reshape.default, wide, [prod(blocks)])
