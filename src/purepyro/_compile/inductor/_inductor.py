"""Inductor, torch's compiler: how it is called, and whether it finds what it needs."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from ..._compat._tracing import LOCK
from ...random._bits._philox_operators import OPERATOR, expanded_in_planes
from .._compiler_thread import apart
from .._torch_logs import silent
from ..passes._materialize import KEPT
from ._cpp_wrapper import exact_vectors, quick_buffers

LOGGER = logging.getLogger("purepyro.jit")

Run = Callable[..., Sequence[Tensor]]


def inductor(module: fx.GraphModule, inputs: Sequence[Tensor], mark: str) -> Run:
    """``module`` compiled; the artefact is kept on disk, in torch's own cache.

    Args:
        module: A graph from tensors to a list of tensors.
        inputs: Tensors like those that it will be called with.
        mark: Says all there is to say of the graph, its loops' bodies included.
    """
    # What becomes of nodes of ours (`expanded_in_planes`, `_written_down`), and how our wrapper
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
        # A product and a sum in one operation, as Triton and XLA have it too.
        "cpp.enable_floating_point_contract_flag": "fast",
    }
    with LOCK:
        return apart(partial(_made, module, inputs, settings))


def _made(module: fx.GraphModule, inputs: Sequence[Tensor], settings: dict[str, object]) -> Run:
    with torch.no_grad(), silent(), exact_vectors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated functions
        package = _inductor()
        if any(tensor.device.type != "cpu" for tensor in inputs):
            return _compiled(module, inputs, settings)
        try:
            with quick_buffers() as more:
                return _directly(_compiled(module, inputs, {**settings, **more}))
        except package.exc.InductorError as error:
            LOGGER.info("Inductor failed with buffers of ours, and goes on with its own: %s", error)
            return _directly(_compiled(module, inputs, settings))


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


def _compiled(module: fx.GraphModule, inputs: Sequence[Tensor], settings: dict[str, object]) -> Run:
    package = _inductor()
    known = {name: value for name, value in settings.items() if _has_setting(name)}
    with package.config.patch(known):
        run: Run = package.standalone_compile(
            module, list(inputs), dynamic_shapes="from_example_inputs"
        )
    return run


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
    # Inductor spells a block of Philox out, and fuses it with what uses it. It keeps a copy of this
    # table from the first compilation on, which may have been somebody else's.
    home.decompositions[OPERATOR] = expanded_in_planes
    copy = getattr(home, "fast_random_decomps", None)
    getattr(copy, "cache_clear", lambda: None)()
    register: Any = import_module("torch._inductor.lowering").register_lowering
    register(KEPT, type_promotion_kind=None)(_written_down)
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
    names: Any = apart(_inductor).config.cpp.cxx
    candidates = names if isinstance(names, (tuple, list)) else (names,)
    found = [shutil.which(str(name)) for name in candidates if name]
    # Inductor's first candidate is None where it may fetch a compiler by itself.
    return any(found) or (sys.platform == "win32" and shutil.which("cl") is not None)


@cache
def has_triton() -> bool:
    """Whether Inductor finds Triton, its compiler for GPUs."""
    return bool(import_module("torch.utils._triton").has_triton())
