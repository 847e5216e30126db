"""Tensors of loops: made once, ahead of the first turn.

Inductor's C++ wrapper makes each tensor of a loop's body anew at every turn, in new memory. That
takes some two tenths of a microsecond, as long as many a kernel. What a turn hands to the next
needs two memories, of which one is read while the other is written; all else needs one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from ._cpp_buffers import QuickBuffers

_AHEAD = "// ahead of the first turn"


class _Loop(NamedTuple):
    """What is written ahead of a loop, and the graph that tells whether there is another turn."""

    ahead: list[str]
    condition: Any


class Turns(QuickBuffers):
    """What is different in loops."""

    writeline: Any

    def __init__(self) -> None:
        super().__init__()
        self._loops: dict[Any, _Loop] = {}

    def codegen_while_loop(self, while_loop: Any, stack_output: bool = False) -> None:
        """Write a loop."""
        parent: Any = super()
        condition, body = while_loop.cond_subgraph.graph, while_loop.body_subgraph.graph
        loop = _Loop([_AHEAD], condition)
        self._loops |= {condition: loop, body: loop}
        # What its tensors are is known later, when all of the graph is.
        later: Any = import_module("torch._inductor.utils").DelayReplaceLine
        self.writeline(later(_AHEAD, lambda: "\n".join(loop.ahead), _AHEAD))
        parent.codegen_while_loop(while_loop, stack_output)

    def make_buffer_allocation(self, buffer: Any) -> str:
        """The code for a new buffer."""
        count = self._memories(buffer)
        if not count:
            return super().make_buffer_allocation(buffer)
        name, line = buffer.get_name(), self.wrapper_call.writeline
        ahead = self._loops[self.codegened_graph_stack[-1]].ahead.append
        if count == 2:
            for turn in "even", "odd":
                self._write_empty(buffer, f"{name}_{turn}", ahead)
            ahead(f"bool {name}_is_odd = false;")
            line(f"{name}_is_odd = !{name}_is_odd;")
            source = f"({name}_is_odd ? {name}_odd : {name}_even)"
        else:
            source = f"{name}_once"
            write = self._write_kept if self._can_keep(buffer) else self._write_empty
            write(buffer, source, ahead)
            self._kept.add(name)
        self._write_handle(name, f"aoti_torch_assign_tensors_out({source}", line)
        return ""

    def _memories(self, buffer: Any) -> int:
        """How many a tensor of a loop has; none if it is no such tensor, or may be held on to."""
        graph, name = self.codegened_graph_stack[-1], buffer.get_name()
        if graph not in self._loops or not self._is_tensor(buffer):
            return 0
        results = set(graph.get_output_names())
        if name not in results:
            return 0 if name in self._names().leaving else 1
        if graph is self._loops[graph].condition:
            return 1
        # A result of the turn before last may be among those of the last, handed on as it was.
        return 2 if results.isdisjoint(graph.graph_inputs) else 0
