"""Small intermediate results on the stack.

Inductor's C++ wrapper allocates each buffer between two loops of a kernel as a tensor, at each call
and at each turn of a loop: some two tenths of a microsecond for what is often a single number. For
models compiled ahead of time torch has a wrapper that takes the stack in their place
(``torch._inductor.config.aot_inductor.allow_stack_allocation``). It fails where graphs lie within
graphs: what a turn of a loop hands to the next must outlive it. Here it takes the small buffers
only, and none that a graph returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from math import prod
from typing import Any

# In bytes: of one buffer, and of all of a graph. A thread's stack has 512 KiB at least.
_LIMIT = 16 << 10
_TOTAL = 96 << 10

_SETTINGS: Mapping[str, object] = {"aot_inductor.allow_stack_allocation": True}

# All that is done between kernels is one function, thousands of lines long where a model has many
# sites: calls, for which optimisation does little, and at which g++ takes minutes.
_LIGHTLY = """
#if defined(__GNUC__) && !defined(__clang__)
void inductor_entry_impl(AtenTensorHandle*, AtenTensorHandle*)
    __attribute__((optimize("LEVEL")));
#endif
"""
# Of inputs, from where on time to compile counts more than a tenth of the time of a step.
_MANY = 200


@contextmanager
def small_buffers_on_stack() -> Iterator[Mapping[str, object]]:
    """Let Inductor put small buffers on the stack; gives the settings that it needs to do so.

    If this torch has no such wrapper, nothing changes. The caller keeps others from compiling.
    """
    device, wrapper = _device(), _wrapper()
    if device is None or wrapper is None:
        yield {}
        return
    before = device.cpp_wrapper_codegen
    device.cpp_wrapper_codegen = wrapper
    try:
        yield _SETTINGS
    finally:
        device.cpp_wrapper_codegen = before


class _SmallBuffersOnStack:
    """What is different from torch's wrapper with buffers on the stack, of which it is a part."""

    # Of torch's.
    allow_stack_allocation: Any
    stack_allocated_buffers: Any
    codegened_graph_stack: Any
    header: Any

    _used = 0
    _graph: Any = None
    _names: frozenset[str] = frozenset()

    @classmethod
    def create(cls, *_: object) -> _SmallBuffersOnStack:
        """A wrapper for a new graph."""
        return cls()

    def write_header(self) -> None:
        """The head of the code: with a word to the compiler on the wrapper's only function."""
        parent: Any = super()
        parent.write_header()
        graph: Any = import_module("torch._inductor.virtualized").V.graph
        level = "Og" if len(graph.graph_inputs) > _MANY else "O1"
        self.header.splice(_LIGHTLY.replace("LEVEL", level))

    def is_safe_to_use_borrow_arrayref_tensor_as_tensor(self) -> bool:
        """Whether what functions of libraries are given may be lent to them: it is a tensor."""
        return True

    def can_stack_allocate_buffer(self, buffer: Any) -> bool:
        """Whether a new buffer goes on the stack; asked once of each."""
        parent: Any = super()
        # Unset wherever a function of a library is called; what that is given is known here.
        self.allow_stack_allocation = True
        size = _bytes(buffer)
        if (
            size is None
            or self._used + size > _TOTAL
            or buffer.get_name() in self._tensors()
            or not parent.can_stack_allocate_buffer(buffer)
        ):
            return False
        self._used += size
        return True

    def _tensors(self) -> frozenset[str]:
        """The buffers of the present graph that must be tensors."""
        graph = self.codegened_graph_stack[-1]
        if self._graph is not graph:
            self._graph, self._names = graph, _tensors_of(graph)
        return self._names

    def can_reuse(self, input_buffer: Any, output_buffer: Any = None) -> bool:
        """Whether a kernel may write its result over an argument: not over a small one.

        That may lie on the stack, and the result may have to leave it.
        """
        parent: Any = super()
        if output_buffer is not None and _bytes(input_buffer.node) is not None:
            return False
        return bool(parent.can_reuse(input_buffer, output_buffer))

    def make_buffer_reuse(self, old: Any, new: Any, delete_old: bool) -> str:
        """The code for a buffer in the memory of one that is done with."""
        parent: Any = super()
        if old.get_name() in self.stack_allocated_buffers:
            return str(parent.make_buffer_allocation(new))
        return str(parent.make_buffer_reuse(old, new, delete_old))


def _tensors_of(graph: Any) -> frozenset[str]:
    """The buffers of a graph that must be tensors: its results, and what is not a kernel's alone.

    Loops and functions of libraries take and give tensors.
    """
    names = set(graph.get_output_names())
    for node in graph.scheduler.nodes:
        if node.is_extern():
            names.update(each.name for each in node.read_writes.reads_and_writes())
            names.update(node.get_buffer_names())
    return frozenset(names)


def _bytes(buffer: Any) -> int | None:
    """The size of a buffer, if it is known and small."""
    numbers: Any = prod(buffer.get_size())
    if not isinstance(numbers, int) and not getattr(numbers, "is_number", False):
        return None
    size = int(numbers) * int(buffer.get_dtype().itemsize)
    return size if size <= _LIMIT else None


@cache
def _wrapper() -> Any:
    """The class of wrappers, if this torch has what it stands on."""
    try:
        home: Any = import_module("torch._inductor.codegen.cpp_wrapper_cpu_array_ref")
        base: Any = home.CppWrapperCpuArrayRef
        # No result lies on the stack: they are returned as by the plain wrapper, which also knows
        # what to do with one that comes twice.
        results = {"generate_return": home.CppWrapperCpu.generate_return}
    except (ImportError, AttributeError):
        return None
    own = [name for name in vars(_SmallBuffersOnStack) if not name.startswith("_")]
    if not all(hasattr(base, name) for name in own):
        return None
    return type("Wrapper", (_SmallBuffersOnStack, base), results)


@cache
def _device() -> Any:
    """What Inductor knows of CPUs."""
    common: Any = import_module("torch._inductor.codegen.common")
    try:
        common.init_backend_registration()
        found = common.device_codegens["cpu"]
    except (AttributeError, KeyError):
        return None
    return found if hasattr(found, "cpp_wrapper_codegen") else None
