"""Small operations on graphs: lift, extract, build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import getitem
from typing import Any, TypeAlias

from torch import Tensor, fx, nn

from ..._compat._tracing import aten, held_by, is_view

# For each node of an old graph the new one.
Env: TypeAlias = dict[fx.Node, fx.Node]


def inputs_of(graph: fx.Graph) -> list[fx.Node]:
    """The nodes of a graph's inputs, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def outputs_of(graph: fx.Graph) -> list[Any]:
    """What a graph returns, in order."""
    return list(next(node for node in reversed(graph.nodes) if node.op == "output").args[0])


def lifted(module: fx.GraphModule) -> list[Tensor]:
    """Make inputs of the tensors that a graph holds, behind its own; returns them."""
    held, graph = held_by(module), module.graph
    inputs = inputs_of(graph)
    seen: dict[int, fx.Node] = {}
    found: list[Tensor] = []
    for node in list(graph.nodes):
        value = held.get(node.target) if node.op == "get_attr" else None
        if not isinstance(value, Tensor):
            continue
        if id(value) not in seen:
            place = inputs[-1].next if inputs else next(iter(graph.nodes))
            with graph.inserting_before(place):
                new = graph.placeholder(f"captured_{len(found)}")
            new.meta["val"] = value.detach()
            inputs.append(new)
            seen[id(value)] = new
            found.append(value)
        node.replace_all_uses_with(seen[id(value)])
        graph.erase_node(node)
    return found


def own_outputs(graph: fx.Graph) -> None:
    """Copy the outputs that share their memory with an input, or with an output before."""
    last = next(node for node in reversed(graph.nodes) if node.op == "output")
    found: list[Any] = []
    taken: set[fx.Node] = set()
    for node in last.args[0]:
        memory = _memory(node)
        if memory in taken or memory.op == "placeholder":
            with graph.inserting_before(last):
                copy = graph.call_function(aten.clone.default, (node,))
            copy.meta = dict(node.meta)
            node = copy
        taken.add(memory)
        found.append(node)
    last.args = (found,)


def _memory(node: fx.Node) -> fx.Node:
    """The node that made the memory of ``node``."""
    below = viewed(node)
    return node if below is None else _memory(below)


def viewed(node: fx.Node) -> fx.Node | None:
    """The node of which ``node`` is a view; ``None`` if it has memory of its own."""
    below = node.args[0] if node.args else None
    if not isinstance(below, fx.Node):
        return None
    return below if is_view(below if node.target is getitem else node) else None


def needed_by(outputs: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes that ``outputs`` are computed from, themselves included, beyond the known ones."""
    needed: set[fx.Node] = set()
    done, stack = set(known), list(outputs)
    while stack:
        node = stack.pop()
        if node not in done:
            done.add(node)
            needed.add(node)
            stack += node.all_input_nodes
    return needed


def in_order(graph: fx.Graph) -> fx.Graph:
    """The same graph, with each node behind those that it needs, and none that nobody needs."""
    done: dict[fx.Node, fx.Node] = {}
    new = fx.Graph()
    for node in inputs_of(graph):
        done[node] = new.node_copy(node)
    outputs = outputs_of(graph)
    stack = list(reversed(outputs))
    while stack:
        node = stack[-1]
        missing = [each for each in node.all_input_nodes if each not in done]
        if node in done or not missing:
            stack.pop()
            if node not in done:
                done[node] = new.node_copy(node, done.__getitem__)
        else:
            stack += reversed(missing)
    new.output(tuple(done[node] for node in outputs))
    return new


class Builder:
    """A graph in the making."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self._modules = nn.Module()

    def inputs(self, prefix: str, count: int) -> list[fx.Node]:
        """New inputs."""
        return [self.graph.placeholder(f"{prefix}_{i}") for i in range(count)]

    def call(self, operator: Callable[..., object], *args: Any, **kwargs: Any) -> fx.Node:
        """A new operation."""
        return self.graph.call_function(operator, args, kwargs)

    def hold(self, name: str, module: fx.GraphModule) -> fx.Node:
        """A graph to be passed to an operator."""
        self._modules.add_module(name, module)
        return self.graph.create_node("get_attr", name)

    def copy_node(self, node: fx.Node, env: Mapping[fx.Node, Any]) -> fx.Node:
        """A node of another graph, on the nodes that stand for its arguments."""
        return self.graph.node_copy(node, lambda argument: env[argument])

    def copy(
        self, source: fx.Graph, outputs: Sequence[fx.Node], known: Mapping[fx.Node, fx.Node]
    ) -> list[fx.Node]:
        """``outputs`` of another graph, computed here, where ``known`` nodes stand for its own."""
        env = dict(known)
        needed = needed_by(outputs, env)
        for node in source.nodes:
            if node in needed:
                env[node] = self.copy_node(node, env)
        return [env[output] for output in outputs]

    def inline(self, module: fx.GraphModule, args: Sequence[fx.Node]) -> list[fx.Node]:
        """The outputs of another graph on these inputs."""
        known = dict(zip(inputs_of(module.graph), args, strict=True))
        return self.copy(module.graph, outputs_of(module.graph), known)

    def module(self, outputs: Sequence[fx.Node] | fx.Node) -> fx.GraphModule:
        """The finished graph, of several outputs or of a single one."""
        self.graph.output(outputs if isinstance(outputs, fx.Node) else tuple(outputs))
        self.graph.lint()
        return fx.GraphModule(self._modules, self.graph)


def on_device(builder: Builder, node: fx.Node, like: Tensor) -> fx.Node:
    """A 0-d tensor of the CPU on the device of ``like``."""
    if like.device.type == "cpu":
        return node
    return builder.call(aten._to_copy.default, node, device=like.device)
