"""Inductor's writer of C++ code, with buffers of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from ._cpp_buffers import QuickBuffers
from ._cpp_loops import Turns

_SETTINGS: Mapping[str, object] = {"aot_inductor.allow_stack_allocation": True}


@contextmanager
def quick_buffers() -> Iterator[Mapping[str, object]]:
    """Have buffers on the stack, or in memory that is kept; gives Inductor's settings for it.

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


@contextmanager
def exact_vectors() -> Iterator[None]:
    """Have ``exp(x) - 1`` of vectors by the library's function for it.

    Inductor writes the difference, which has none of the digits of a small result.
    """
    home: Any = import_module("torch._inductor.codegen.cpp").CppVecOverrides
    before = vars(home).get("expm1")
    if before is None:
        yield
        return
    home.expm1 = staticmethod(_expm1)
    try:
        yield
    finally:
        home.expm1 = before


def _expm1(x: object) -> str:
    return f"{x}.expm1()"


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
    own = [name for kind in (QuickBuffers, Turns) for name in vars(kind) if name[0] != "_"]
    if not all(hasattr(base, name) for name in own):
        return None
    return type("Wrapper", (Turns, base), results)


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
