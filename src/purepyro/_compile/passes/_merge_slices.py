"""Parts of one tensor that are put side by side again.

All draws of a step are one (:mod:`._merge_draws`), each site takes its part, and a loop gets the
parts of all sites side by side: part by part that is a kernel for each site. And of four normal
values that a block of Philox makes, sites with a single value use one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, value_of
from ...random._bits._philox_operators import FIRST, OPERATOR
from ._graph import Builder, Env, in_order, outputs_of
from ._horizontal import Joiner

# Views that change no number.
_VIEWS = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.reshape.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
        aten._unsafe_view.default,
    }
)
# Of numbers: it is not looked at where those of larger tensors lie.
_LARGE = 1 << 16


def with_whole_parts(module: fx.GraphModule) -> fx.GraphModule:
    """The same function, in which neighbouring parts of a tensor are taken as one.

    Args:
        module: A graph whose nodes know their values.
    """
    builder = Builder()
    writer = _Writer(builder)
    env: Env = {}
    for node in module.graph.nodes:
        if node.op != "output":
            env[node] = writer.cat(node, env) if _is_cat(node) else builder.copy_node(node, env)
    builder.graph.output(tuple(env[node] for node in outputs_of(module.graph)))
    for node in list(builder.graph.nodes):
        if node.target is OPERATOR and node.args[2] in FIRST:
            writer.draw_the_first(node)
    return fx.GraphModule(module, in_order(builder.graph))


class _Run(NamedTuple):
    """Numbers at equal distances in a tensor.

    Attributes:
        base: The tensor.
        first: The place of the first number.
        last: The place of the last one.
        step: The distance; none if there is a single number.
    """

    base: fx.Node
    first: int
    last: int
    step: int | None

    @classmethod
    def of(cls, base: fx.Node, places: Tensor) -> _Run | None:
        """Those at some places, if that is how they lie."""
        found: list[int] = places.flatten().tolist()
        steps = {b - a for a, b in pairwise(found)}
        if not found or len(steps) > 1 or min(steps, default=1) < 1:
            return None
        return cls(base, found[0], found[-1], next(iter(steps), None))

    def followed_by(self, other: _Run) -> _Run | None:
        """Both, if they are one."""
        steps = {self.step, other.step, other.first - self.last} - {None}
        if self.base is not other.base or len(steps) > 1 or other.first <= self.last:
            return None
        return _Run(self.base, self.first, other.last, other.first - self.last)


class _Writer:
    """Writes what takes the place of concatenations, and of draws."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._joiner = Joiner(builder)
        self._places: dict[fx.Node, tuple[fx.Node, Tensor]] = {}

    def cat(self, node: fx.Node, env: Env) -> fx.Node:
        """What a concatenation of first dimensions becomes."""
        members: Any = node.args[0]
        value = value_of(node)
        found = list(self._whole([env[member] for member in members], value.shape[1:]))
        if len(found) == 1:
            return found[0]
        if value.dim() == 1 and all(value_of(each).dtype == value.dtype for each in found):
            return self._joiner.joined(found)
        return self._call(aten.cat.default, (found,), value)

    def draw_the_first(self, draw: fx.Node) -> None:
        """Draw no more than the first number of each block, if no other is used."""
        args: Any = draw.args
        key, index, kind = args
        value = value_of(draw)
        lanes = value.shape[-1]
        shown = {node: self._run(node) for node in _ends(draw)}
        runs = {node: run for node, run in shown.items() if run is not None}
        steps = [*(run.first for run in runs.values()), *(run.step or 0 for run in runs.values())]
        if len(runs) < len(shown) or any(step % lanes for step in steps):
            return
        first = self._call(OPERATOR, (key, index, FIRST[kind]), value[..., :1])
        for node, run in runs.items():
            step = None if run.step is None else run.step // lanes
            fewer = _Run(first, run.first // lanes, run.last // lanes, step)
            node.replace_all_uses_with(self._slice(fewer, value_of(node)))

    def _whole(self, nodes: Sequence[fx.Node], rest: Sequence[int]) -> Iterator[fx.Node]:
        """The same numbers, where neighbours in a tensor are one."""
        before: list[fx.Node] = []
        run: _Run | None = None
        for node in (*nodes, None):
            own = None if node is None else self._run(node)
            both = own and run and run.followed_by(own)
            if not both:
                yield from self._one(before, run, rest)
                before = []
            before += [] if node is None else [node]
            run = both or own

    def _one(
        self, nodes: Sequence[fx.Node], run: _Run | None, rest: Sequence[int]
    ) -> Iterator[fx.Node]:
        if run is None or len(nodes) < 2:
            yield from nodes
            return
        values = [value_of(node) for node in nodes]
        yield self._slice(run, values[0].new_empty([sum(map(len, values)), *rest]))

    def _slice(self, run: _Run, value: Tensor) -> fx.Node:
        """These numbers, in a tensor like ``value``."""
        base = value_of(run.base)
        if base.shape == value.shape and run.last - run.first + 1 == base.numel():
            return run.base
        flat = self._call(aten.reshape.default, (run.base, [-1]), base.reshape(-1))
        cut = (flat, 0, run.first, run.last + 1, run.step or 1)
        found = self._call(aten.slice.Tensor, cut, value.new_empty([value.numel()]))
        return self._call(aten.reshape.default, (found, list(value.shape)), value)

    def _call(
        self, target: Callable[..., object], args: Sequence[object], value: Tensor
    ) -> fx.Node:
        node = self._builder.call(target, *args)
        node.meta["val"] = value
        return node

    def _run(self, node: fx.Node) -> _Run | None:
        """Where the numbers of a node lie in the tensor that it shows."""
        return None if value_of(node).numel() > _LARGE else _Run.of(*self._seen(node))

    def _seen(self, node: fx.Node) -> tuple[fx.Node, Tensor]:
        """The tensor that a node shows, and the places of what it shows, in its shape."""
        if node not in self._places:
            below: Any = node.args[0] if node.target in _VIEWS else None
            if below is None or value_of(below).numel() > _LARGE:
                value = value_of(node)
                self._places[node] = node, torch.arange(value.numel()).reshape(value.shape)
            else:
                base, places = self._seen(below)
                view: Any = node.target
                # The places lie one after another, which the tensor itself may not.
                view = torch.reshape if view is aten.view.default else view
                self._places[node] = base, view(places, *node.args[1:], **node.kwargs)
        return self._places[node]


def _ends(node: fx.Node) -> Iterator[fx.Node]:
    """The node and the views of it that something else is computed from."""
    views = [user for user in node.users if user.target in _VIEWS]
    if len(views) < len(node.users):
        yield node
    for view in views:
        yield from _ends(view)


def _is_cat(node: fx.Node) -> bool:
    """Whether a node puts tensors side by side, each with a first dimension."""
    return node.target is aten.cat.default and bool(len(node.args) == 1 or node.args[1] == 0)
