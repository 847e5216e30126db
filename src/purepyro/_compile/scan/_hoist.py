"""What does not wait for the loop, precomputed for a block of steps."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, graph_of, value_of
from ..passes._graph import Builder, Env, on_device, outputs_of
from ..passes._horizontal import HorizontalFuser
from ..passes._merge_draws import with_merged_draws
from ..passes._pack import Pack
from ._partition import Cut, Step


def precomputed(step: Step, cut: Cut, pack: Pack, rows: int) -> fx.GraphModule:
    """A graph from the first row, the counters there, and the invariants, to packed matrices."""
    given = [value_of(node) for node in (*step.counters, *step.invariants)]
    examples = [torch.tensor(0), *map(_like, given)]
    single = _of_one_row(step, cut, pack)

    def of_all(first: Tensor, *inputs: Tensor) -> object:
        index = torch.arange(rows) - first
        return torch.vmap(single, in_dims=(0, *[None] * len(inputs)))(index, *inputs)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*performance drop.*")
        module = graph_of(of_all, examples)
    module.graph.eliminate_dead_code()
    return module


def _of_one_row(step: Step, cut: Cut, pack: Pack) -> fx.GraphModule:
    """The same for one row, from how many rows it lies behind the counters."""
    builder = Builder()
    (row,) = builder.inputs("row", 1)
    known = {node: builder.copy_node(node, {}) for node in (*step.counters, *step.invariants)}
    for node in step.counters:
        row.meta["val"] = value_of(node).new_empty((), dtype=torch.int64, device="cpu")
        here = on_device(builder, row, value_of(node))
        known[node] = builder.call(aten.add.Tensor, known[node], here)
    merged = with_merged_draws(builder.module(builder.copy(step.graph, cut.precomputed, known)))
    return _with_slices(merged, pack)


def _with_slices(module: fx.GraphModule, pack: Pack) -> fx.GraphModule:
    """A graph with its outputs packed, and concatenations of what lies side by side now as slices.

    All draws of a step are one. Each site takes a slice, and the loop gets those of all sites.
    """
    builder = Builder()
    fuser = HorizontalFuser(builder)
    env: Env = {}
    for node in module.graph.nodes:
        if node.target is aten.cat.default and node.args[1:] in ((), (0,)):
            joined = fuser.joined([env[member] for member in node.args[0]])
            env[node] = builder.call(aten.reshape.default, joined, list(value_of(node).shape))
        elif node.op != "output":
            env[node] = builder.copy_node(node, env)
    found = [env[node] for node in outputs_of(module.graph)]
    return builder.module(pack.pack(found, fuser.joined))


def _like(value: Tensor) -> Tensor:
    """A tensor of the same kind, with any elements and hardly any memory."""
    return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape)
