"""Inductor on graphs that are functional already.

For graphs that write in place, or need gradients, torch puts AOTAutograd before Inductor: it runs a
graph for what it writes to, traces it anew, and runs passes for pairs of forward and backward
graphs. A graph of ours gets the one thing of this that it needs: operations that Inductor does not
know are spelled out; and that only if what is compiled is not found on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx

from ..._compat._tracing import tracers, writes


def functional_compiled(
    module: fx.GraphModule, inputs: Sequence[Tensor]
) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """A functional graph compiled for the CPU; it is called with a list, which it empties."""
    home: Any = import_module("torch._inductor.compile_fx")
    guards: Any = import_module("torch._guards")
    boxed: Any = import_module("torch._inductor.utils").BoxedBool
    fakes_of, shapes, _ = tracers()
    mode = fakes_of(allow_non_fake_inputs=True, shape_env=shapes(), static_shapes=True)
    # A tensor that is given twice is two inputs: the next call may have two tensors there, and of
    # one object torch makes one fake.
    fakes = [mode.from_tensor(tensor.detach(), static_shapes=True) for tensor in inputs]
    with guards.tracing(guards.TracingContext(mode)), _spelled_out_on_the_way(home, mode, fakes):
        found: Any = home.compile_fx_inner(
            module, fakes, is_inference=True, cpp_wrapper=True, cudagraphs=boxed(False)
        )
    # Past what torch does before and after each call for CUDA graphs and profilers.
    shorter: Any = getattr(found, "current_callable", None)
    run: Callable[[list[Tensor]], Sequence[Tensor]] = shorter or found
    return run


@contextmanager
def _spelled_out_on_the_way(home: Any, mode: Any, fakes: Sequence[Tensor]) -> Iterator[None]:
    """A stretch of code in which Inductor, if it does not find a graph on disk, spells it out."""
    before = home.fx_codegen_and_compile

    def compile_(module: fx.GraphModule, *args: Any, **kwargs: Any) -> Any:
        return before(_spelled_out(module, mode, fakes), *args, **kwargs)

    home.fx_codegen_and_compile = compile_
    try:
        yield
    finally:
        home.fx_codegen_and_compile = before


def _spelled_out(module: fx.GraphModule, mode: Any, fakes: Sequence[Tensor]) -> fx.GraphModule:
    table = import_module("torch._inductor.decomposition").select_decomp_table()
    make = tracers()[2](
        lambda *inputs: module(*inputs),
        decomposition_table=table,
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )
    with mode, torch.no_grad():
        made: fx.GraphModule = make(*fakes)
    for part in made.modules():
        if isinstance(part, fx.GraphModule):
            part.graph.eliminate_dead_code()
            part.recompile()
            if any(node.op == "call_function" and writes(node) for node in part.graph.nodes):
                raise NotImplementedError("torch spells an operation out by writing in place")
    last = next(node for node in reversed(made.graph.nodes) if node.op == "output")
    results = last.args[0] if isinstance(last.args[0], (tuple, list)) else [last.args[0]]
    visible = [place for place, node in enumerate(results) if isinstance(node, fx.Node)]
    last.meta["user_visible_output_idxs"] = visible
    return made
