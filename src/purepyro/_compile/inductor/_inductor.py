"""Inductor, torch's compiler: how it is called, and whether it finds what it needs."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ..._compat._tracing import LOCK
from ...random._bits._philox_operators import OPERATOR, ROUNDS
from .._compiler_thread import in_compiler_thread
from .._torch_logs import quiet
from ..passes._materialize import MATERIALIZE
from ._cpp_header import small_header
from ._cpp_philox import decomposed, lowered
from ._cpp_wrapper import exact_vectors, quick_buffers
from ._functional import functional_compiled
from ._quick_codegen import quick_codegen

LOGGER = logging.getLogger("purepyro.jit")

Run = Callable[..., Sequence[Tensor]]

# The first error of the quick way, which would come again with every graph.
_FAILED: list[Exception] = []


def inductor(module: fx.GraphModule, inputs: Sequence[Tensor], mark: str) -> Run:
    """``module`` compiled; the artefact is kept on disk, in torch's own cache.

    Args:
        module: A graph from tensors to a list of tensors.
        inputs: Tensors like those that it will be called with.
        mark: Says all there is to say of the graph, its loops' bodies included.
    """
    # What becomes of nodes of ours (`decomposed`, `_written_down`), and how our wrapper
    # writes code, is else no part of the key of torch's cache.
    mark = f"{own_code()} {mark}"
    settings: dict[str, object] = {
        # Without it a loop calls Python at each turn, and each kernel costs a microsecond more.
        "cpp_wrapper": True,
        # torch does not vouch for graphs with loops; the mark is part of the cache's key.
        "unsafe_marked_cacheable_functions": {
            "while_loop": mark,
            "torch.ops.higher_order.while_loop": mark,
        },
        # What is read up to so often is computed where it is read: a buffer costs more.
        "realize_reads_threshold": 8,
        # Every index is in range: `_index_checks.py` sees to it.
        "assert_indirect_indexing": False,
        # Half of the first compilation on a machine: a header that few graphs share, and a trial
        # of instructions that the processor says it has.
        "cpp_cache_precompile_headers": False,
        "cpp.vec_isa_ok": True,
        "aot_inductor.enable_line_tables": False,
        # A product and a sum in one operation, as Triton and XLA have it too.
        "cpp.enable_floating_point_contract_flag": "fast",
    }
    with LOCK:
        return in_compiler_thread(partial(_made, module, inputs, settings))


def _made(module: fx.GraphModule, inputs: Sequence[Tensor], settings: Mapping[str, object]) -> Run:
    with (
        torch.no_grad(),
        quiet(),
        exact_vectors(),
        quick_codegen(),
        warnings.catch_warnings(),
        _set(settings),
    ):
        warnings.simplefilter("ignore")  # torch warns of its own deprecated functions
        if any(tensor.device.type != "cpu" for tensor in inputs):
            return _compiled(module, inputs)
        try:
            with quick_buffers() as more, _set(more):
                return _quickly(module, inputs)
        except _inductor().exc.InductorError as error:
            LOGGER.info("Inductor failed with code of ours, and goes on with its own: %s", error)
            return _directly(_compiled(module, inputs))


def _quickly(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Run:
    """A graph compiled past what only other graphs need, if this torch and compiler allow it."""
    if _FAILED:
        return _directly(_compiled(module, inputs))
    try:
        with small_header():
            run = functional_compiled(deepcopy(module), inputs)
    except Exception as error:  # whatever this torch does otherwise
        found = _directly(_compiled(module, inputs))
        LOGGER.info("Graphs go all of torch's way from now on, which takes longer: %s", error)
        _FAILED.append(error)
        return found
    return lambda *inputs: run(list(inputs))  # which it empties


@cache
def own_code() -> str:
    """A mark of all code of ours that has a part in compiled code."""
    try:
        own = version("purepyro")
    except PackageNotFoundError:
        own = ""
    package = Path(__file__).parents[2]
    parts = ("_compat", "_compile", "random/_bits")
    return mark_of_sources([package / part for part in parts], own)


def mark_of_sources(folders: Sequence[Path], own: str) -> str:
    """The same, of the Python files in these folders."""
    found = sha256(own.encode())
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            found.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def _compiled(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Run:
    compile_: Callable[..., Run] = _inductor().standalone_compile
    return compile_(module, list(inputs), dynamic_shapes="from_example_inputs")


def _set(settings: Mapping[str, object]) -> AbstractContextManager[object]:
    """A stretch of code with these settings, as far as this Inductor has them."""
    known = {name: value for name, value in settings.items() if _has_setting(name)}
    patched: AbstractContextManager[object] = _inductor().config.patch(known)
    return patched


def _directly(run: Run) -> Run:
    """What is called in the end on the CPU, past what torch puts before it for other graphs.

    That takes five microseconds, for inputs that need a gradient, that are written to, or that are
    subclasses of tensors: no input of ours is.
    """
    compiled = getattr(run, "_compiled_fn", None)
    inner: Callable[[list[Tensor]], Sequence[Tensor]] | None
    inner = getattr(compiled, "current_callable", None)
    if inner is None:
        return run

    def directly(*inputs: Tensor) -> Sequence[Tensor]:
        found: Sequence[Tensor] = inner(list(inputs))  # which it empties
        return found

    return directly


@cache
def _inductor() -> Any:
    """The package, which takes over a second to import: only those who compile wait for it."""
    home: Any = import_module("torch._inductor.decomposition")
    # Inductor keeps a copy of this table from the first compilation on, which may have been
    # somebody else's.
    home.decompositions[OPERATOR] = decomposed
    copy = getattr(home, "fast_random_decomps", None)
    getattr(copy, "cache_clear", lambda: None)()
    register: Any = import_module("torch._inductor.lowering").register_lowering
    register(MATERIALIZE, type_promotion_kind=None)(_written_down)
    register(ROUNDS, type_promotion_kind=None)(lowered)
    import_module("torch._inductor.exc")
    return import_module("torch._inductor")


def _written_down(value: Any) -> Any:
    ir: Any = import_module("torch._inductor.ir")
    if isinstance(value.data, ir.BaseView):
        return ir.ExternKernel.copy_input(value)
    value.realize()
    return value


def _has_setting(name: str) -> bool:
    owner: Any = _inductor().config
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True


@cache
def has_compiler() -> bool:
    """Whether Inductor finds a C++ compiler."""
    names: Any = in_compiler_thread(_inductor).config.cpp.cxx
    candidates = names if isinstance(names, (tuple, list)) else (names,)
    found = [shutil.which(str(name)) for name in candidates if name]
    # Inductor's first candidate is None where it may fetch a compiler by itself.
    return any(found) or (sys.platform == "win32" and shutil.which("cl") is not None)


@cache
def has_triton() -> bool:
    """Whether Inductor finds Triton, its compiler for GPUs."""
    return bool(import_module("torch.utils._triton").has_triton())
