"""The head of a graph's C++ file, without what it does not need.

Inductor's own takes a C++ compiler four of ten seconds: all of ATen's tensors, boxed operators and
pybind11, of which a graph uses two functions. What calls Python, or an operator that has no C
function of its own, still gets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

HEADER = """
#include <Python.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

// Of pybind11: others may run Python while a graph computes.
namespace pybind11 {
struct gil_scoped_release_simple {
    PyThreadState* state = PyEval_SaveThread();
    gil_scoped_release_simple() = default;
    gil_scoped_release_simple(const gil_scoped_release_simple&) = delete;
    gil_scoped_release_simple& operator=(const gil_scoped_release_simple&) = delete;
    ~gil_scoped_release_simple() { PyEval_RestoreThread(state); }
};
}  // namespace pybind11
namespace py = pybind11;

#include <torch/csrc/inductor/aoti_runtime/arrayref_tensor.h>
#include <torch/csrc/inductor/aoti_runtime/device_utils.h>
#include <torch/csrc/inductor/aoti_runtime/scalar_to_tensor.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
using namespace torch::aot_inductor;
"""

_SMALL: ContextVar[bool] = ContextVar("purepyro_small_header", default=False)


@contextmanager
def small_header() -> Iterator[None]:
    """A stretch of code that compiles with the small header."""
    token = _SMALL.set(True)
    try:
        yield
    finally:
        _SMALL.reset(token)


class SmallHeader:
    """What is different from Inductor's wrapper, of which it is a part."""

    # Of torch's.
    included_devices: Any
    header: Any
    get_device_include_path_jit: Any

    _calls_out = False

    def add_device_include(self, device: str) -> None:
        """Include what the code for a device needs; asked at each call of a function."""
        parent: Any = super()
        if device != "cpu" or device in self.included_devices or not _SMALL.get():
            parent.add_device_include(device)
            return
        self.included_devices.add(device)
        # Whether it is enough is known later, when all of the graph is.
        own = self.get_device_include_path_jit(device)
        later: Any = import_module("torch._inductor.utils").DelayReplaceLine
        self.header.writeline(later(own, lambda: own if self._calls_out else HEADER, own))

    def generate_fallback_kernel_with_runtime_lookup(self, *args: Any, **kwargs: Any) -> None:
        """Write a call of an operator that has no C function."""
        parent: Any = super()
        self._calls_out = True
        parent.generate_fallback_kernel_with_runtime_lookup(*args, **kwargs)
