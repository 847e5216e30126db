"""Where intermediate results lie: on the stack, or in memory that is kept.

Inductor's C++ wrapper allocates each buffer between two loops of a kernel as a tensor, at each call
and at each turn of a loop: some two tenths of a microsecond for what is often a single number. For
models compiled ahead of time torch has a wrapper that takes the stack in their place
(``torch._inductor.config.aot_inductor.allow_stack_allocation``). It fails where graphs lie within
graphs: what a turn of a loop hands to the next must outlive it. Here it takes the small buffers
only, and none that a graph returns.

What is larger, a layer's activations say, is given back to the system when it is freed, and each
page of it is asked for again, and filled with zeros, at the next turn: a quarter of the time of a
step. So a graph keeps memory for these, up to a limit, once for each thread that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from math import prod
from typing import Any, NamedTuple

# In bytes: of one buffer, and of all of a graph. A thread's stack has 512 KiB at least.
_SMALL = 16 << 10
_ALL_SMALL = 96 << 10
# The same of what is kept.
_LARGE = 16 << 20
_ALL_LARGE = 32 << 20

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


class QuickBuffers:
    """What is different from torch's wrapper with buffers on the stack, of which it is a part."""

    # Of torch's.
    allow_stack_allocation: Any
    stack_allocated_buffers: Any
    codegened_graph_stack: Any
    header: Any

    wrapper_call: Any
    codegen_device: Any
    codegen_dtype: Any

    _on_stack = 0
    _in_memory = 0
    _graph: Any = None
    _graphs_own: _Names

    def __init__(self) -> None:
        super().__init__()
        self._kept: set[str] = set()

    @classmethod
    def create(cls, *_: object) -> QuickBuffers:
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
            or size > _SMALL
            or self._on_stack + size > _ALL_SMALL
            or buffer.get_name() in self._names().tensors
            or not parent.can_stack_allocate_buffer(buffer)
        ):
            return False
        self._on_stack += size
        return True

    def make_buffer_allocation(self, buffer: Any) -> str:
        """The code for a new buffer."""
        parent: Any = super()
        if not self._can_keep(buffer):
            return str(parent.make_buffer_allocation(buffer))
        self._write_kept(buffer, buffer.get_name(), self.wrapper_call.writeline)
        return ""

    def _is_tensor(self, buffer: Any) -> bool:
        """Whether a buffer in plain memory, of known size, never lies on the stack."""
        size = _bytes(buffer)
        if size is None or buffer.get_device().type != "cpu" or buffer.get_is_pinned():
            return False
        return size > _SMALL or buffer.get_name() in self._names().tensors

    def _can_keep(self, buffer: Any) -> bool:
        size = _bytes(buffer)
        if size is None or not self._is_tensor(buffer) or not _is_dense(buffer):
            return False
        fits = _SMALL < size <= min(_LARGE, _ALL_LARGE - self._in_memory)
        return fits and buffer.get_name() not in self._names().leaving

    def _write_kept(self, buffer: Any, name: str, line: Callable[[str], object]) -> None:
        """The code for a tensor in memory that stays from call to call; the tensor does not.

        Each is made anew, since it is bound to the mode (``torch.inference_mode``) of its time.
        """
        size = _bytes(buffer) or 0
        self._in_memory += size
        self._kept.add(buffer.get_name())
        rounded = -(-size // 64) * 64
        line(
            f"static thread_local std::unique_ptr<void, decltype(&std::free)> {name}_memory("
            f"std::aligned_alloc(64, {rounded}), &std::free);"
        )
        shape, kind = self._write_shape(buffer, name, line)
        blob = f"aoti_torch_create_tensor_from_blob({name}_memory.get(), {shape}, 0, {kind}"
        self._write_handle(name, blob, line)

    def _write_empty(self, buffer: Any, name: str, line: Callable[[str], object]) -> None:
        """The code for a tensor in new memory."""
        shape, kind = self._write_shape(buffer, name, line)
        self._write_handle(name, f"aoti_torch_empty_strided({shape}, {kind}", line)

    def _write_shape(
        self, buffer: Any, name: str, line: Callable[[str], object]
    ) -> tuple[str, str]:
        """The arguments for the shape of a tensor, and those for its dtype and device."""
        for what, numbers in ("sizes", buffer.get_size()), ("strides", buffer.get_stride()):
            each = "".join(f"{int(number)}, " for number in numbers)
            line(f"static constexpr int64_t {name}_{what}[] = {{{each}0}};")
        device, dtype = self.codegen_device(buffer.get_device()), buffer.get_dtype()
        shape = f"{len(buffer.get_size())}, {name}_sizes, {name}_strides"
        return shape, f"{self.codegen_dtype(dtype)}, {device}"

    @staticmethod
    def _write_handle(name: str, call: str, line: Callable[[str], object]) -> None:
        """The code for what a call makes, up to the last of its arguments."""
        line(f"AtenTensorHandle {name}_handle;")
        line(f"AOTI_TORCH_ERROR_CODE_CHECK({call}, &{name}_handle));")
        line(f"RAIIAtenTensorHandle {name}({name}_handle);")

    def _names(self) -> _Names:
        """Those of buffers of the present graph that are special."""
        graph = self.codegened_graph_stack[-1]
        if self._graph is not graph:
            self._graph, self._graphs_own = graph, _Names.of(graph)
        return self._graphs_own

    def can_reuse(self, input_buffer: Any, kernel: Any = None) -> bool:
        """Whether a kernel may write a result over an argument.

        Not over one that may lie on the stack, or in memory that is kept, if the result may leave.
        """
        parent: Any = super()
        if kernel is not None:
            size, leaving = _bytes(input_buffer.node), self._names().leaving
            if size is not None and (size <= _SMALL or not leaving.isdisjoint(_results(kernel))):
                return False
        return bool(parent.can_reuse(input_buffer, kernel))

    def make_buffer_reuse(self, old: Any, new: Any, delete_old: bool) -> str:
        """The code for a buffer in the memory of one that is done with."""
        parent: Any = super()
        kept, leaves = old.get_name() in self._kept, new.get_name() in self._names().leaving
        if old.get_name() in self.stack_allocated_buffers or (kept and leaves):
            return str(self.make_buffer_allocation(new))
        if kept:
            self._kept.add(new.get_name())
        return str(parent.make_buffer_reuse(old, new, delete_old))


class _Names(NamedTuple):
    """The names of a graph's special buffers.

    Attributes:
        tensors: Those that must be tensors: the graph's results, and what is not a kernel's alone.
            Loops and functions of libraries take and give tensors.
        leaving: Those whose memory may be somebody else's later: the graph's results, and what
            loops and functions get that do not write into memory which they are given.
    """

    tensors: frozenset[str]
    leaving: frozenset[str]

    @classmethod
    def of(cls, graph: Any) -> _Names:
        """Of this one."""
        writing: Any = import_module("torch._inductor.ir").ExternKernelOut
        tensors, leaving = set(graph.get_output_names()), set(graph.get_output_names())
        for node in graph.scheduler.nodes:
            if node.is_extern():
                names = {each.name for each in node.read_writes.reads_and_writes()}
                names |= set(node.get_buffer_names())
                tensors |= names
                if not isinstance(node.node, writing):
                    leaving |= names
        return cls(frozenset(tensors), frozenset(leaving))


def _results(kernel: Any) -> Iterable[str]:
    names: Iterable[str] = kernel.get_buffer_names()
    return names


def _is_dense(buffer: Any) -> bool:
    """Whether a buffer of known size takes no more memory than its numbers do."""
    sizes, strides = buffer.get_size(), buffer.get_stride()
    last = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return bool(last + 1 == prod(sizes))


def _bytes(buffer: Any) -> int | None:
    """The size of a buffer, if it is known."""
    numbers: Any = prod(buffer.get_size())
    if not isinstance(numbers, int) and not getattr(numbers, "is_number", False):
        return None
    return int(numbers) * int(buffer.get_dtype().itemsize)
