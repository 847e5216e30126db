"""What is known ahead of a block of steps, computed for all of them at once."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, graph_of, value_of
from ..passes._graph import Builder, on_device
from ..passes._merge_draws import with_joint_draws
from ..passes._merge_slices import with_whole_parts
from ..passes._pack import Pack
from ._partition import Frontier, Step


def ahead(step: Step, cut: Frontier, pack: Pack, rows: int) -> fx.GraphModule:
    """A graph from the first row, the counters there, and what is fixed, to packed matrices."""
    given = [value_of(node) for node in (*step.counters, *step.given)]
    examples = [torch.tensor(0), *map(_like, given)]
    single = with_joint_draws(_of_one(step, cut, pack))
    single = with_whole_parts(graph_of(single, examples))

    def of_all(first: Tensor, *inputs: Tensor) -> object:
        index = torch.arange(rows) - first
        return torch.vmap(single, in_dims=(0, *[None] * len(inputs)))(index, *inputs)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*performance drop.*")
        module = graph_of(of_all, examples)
    module.graph.eliminate_dead_code()
    return module


def _of_one(step: Step, cut: Frontier, pack: Pack) -> fx.GraphModule:
    """The same for one row, from how many rows it lies behind the counters."""
    builder = Builder()
    (row,) = builder.inputs("row", 1)
    known = {node: builder.copy_node(node, {}) for node in (*step.counters, *step.given)}
    for node in step.counters:
        here = on_device(builder, row, value_of(node))
        known[node] = builder.call(aten.add.Tensor, known[node], here)
    return builder.module(pack.pack(builder, builder.copy(step.graph, cut.ahead, known)))


def _like(value: Tensor) -> Tensor:
    """A tensor of the same kind, with any numbers and hardly any memory."""
    return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape)
