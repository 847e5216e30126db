"""From a graph to something that runs: compiled if it can be, as it is if not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from hashlib import sha256

from torch import Tensor, fx

from ..._compat._cache_folder import folder_fault
from ..._compat._tracing import aten
from ..passes._exact import with_exact_operations
from ..passes._triangles import with_selected_triangles
from ._inductor import Run, has_compiler, has_triton, inductor

LOGGER = logging.getLogger("purepyro.jit")


def compiled(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Run:
    """A graph, ready to be called with tensors like ``inputs``.

    Without a compiler, or if it fails on this graph, the graph itself runs, operation by operation;
    the first time there is a warning.
    """
    parts = [module, *(part for part in module.children() if isinstance(part, fx.GraphModule))]
    for part in parts:
        with_exact_operations(part.graph)
        with_selected_triangles(part.graph)
        for node in part.graph.nodes:
            node.meta = {}  # Inductor would take the tensors in it for its own
            if node.target is aten.view.default:
                node.target = aten.reshape.default  # compiled, keys lie otherwise: in planes
        part.recompile()
    fault = folder_fault()  # of which torch complains when its compiler is imported
    if fault:
        _warn(f"{fault}. Name another folder; until then")
        return module
    missing = _missing(inputs)
    if missing:
        _warn(f"There is no {missing}, so")
        return module
    mark = sha256("\n".join(part.code for part in parts).encode()).hexdigest()
    try:
        return inductor(module, inputs, mark)
    except Exception as error:  # whatever the compiler trips over, the graph is right
        reason = str(error).strip().splitlines()
        LOGGER.debug("Inductor failed on a graph: %s", error)  # pages of a compiler's complaints
        _warn(f"The compiler failed ({type(error).__name__}: {reason[0] if reason else ''}), so")
        return module


def _missing(inputs: Sequence[Tensor]) -> str | None:
    """What the compiler lacks for these devices."""
    if any(tensor.device.type == "cuda" for tensor in inputs):
        return None if has_triton() else "Triton"
    return None if has_compiler() else "C++ compiler"


@cache
def _warn(reason: str) -> None:
    advice = "" if "folder" in reason else " Install g++ or clang (for CUDA: triton)."
    warnings.warn(
        f"{reason} purepyro.jit and compiled runs take the traced graph operation by operation: "
        f"the results are the same, at the speed of eager torch.{advice} "
        "SVI(..., compiled=False) silences this.",
        RuntimeWarning,
        stacklevel=2,
    )
