"""Tracing: the graph of a function of pytrees, and what it captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import attrs
from torch import Tensor, fx

from .._compat._isolation import unvalidated
from .._compat._signals import undisturbed
from .._compat._tracing import COMPILING, LOCK, functional, graph_of, is_random, watching
from .._core._trees import Frame, tensors_in
from .._core._user_code import line_of
from .._errors import PurepyroError, TraceError, describe
from ..random._bits._philox_operators import as_nodes
from ._results import refuse_hidden
from ._source_lines import Lines
from ._torch_logs import silent
from .passes._functionalize import made_functional, refuse_written, written_inputs
from .passes._graph import inputs_of, lifted
from .passes._index_checks import INDEXED, Checks, with_checked_indices
from .passes._linalg_checks import without_checks


@attrs.frozen
class Traced:
    """A graph from tensors to tensors, and how to come back to the function's own result.

    Attributes:
        module: The graph, free of writes in place; its inputs are the tensors given, then the
            captured ones.
        captured: Tensors that the function found elsewhere than in its arguments.
        result: From the graph's outputs to what the function returns.
        checks: Of indices: what the numbers mean that the graph returns behind its results.
    """

    module: fx.GraphModule
    captured: list[Tensor]
    result: Callable[[Sequence[Tensor]], Any]
    checks: Checks


def trace(
    fn: Callable[..., object], inputs: Sequence[Tensor], names: Callable[[], Sequence[str]]
) -> Traced:
    """The graph of ``fn`` on ``inputs``.

    The function runs once, on tensors without numbers: a write into an argument is found and has
    changed nothing, and two arguments which happen to be one tensor are two inputs.

    Args:
        fn: A function of tensors that returns a pytree.
        inputs: Example inputs.
        names: What to call the inputs in an error.
    """
    recorder = _Recorder(fn)
    stand_ins = [tensor.detach() for tensor in inputs]
    module = _traced(recorder, stand_ins)
    _refuse_writes(module, inputs, names)
    if not made_functional(module.graph):
        module = _traced(functional(recorder), stand_ins)
        _refuse_writes(module, inputs, names)
    without_checks(module.graph)
    module.graph.eliminate_dead_code()
    _refuse_global_draws(module.graph)
    captured = lifted(module)
    checks = with_checked_indices(module.graph, recorder.lines)
    return Traced(module, captured, recorder.result, checks)


class _Recorder:
    """A function of tensors that returns tensors, and knows what the result was made of."""

    def __init__(self, fn: Callable[..., object]) -> None:
        self._fn = fn
        self._frame: Frame[object] = Frame.of(())
        self.lines: list[tuple[str, str]] = []

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        lines = Lines(INDEXED)
        with watching(lines.tell):
            found = self._fn(*inputs)
        self.lines = lines.found
        refuse_hidden(found)
        self._frame = Frame.of(found)
        return list(tensors_in(found))

    def result(self, outputs: Sequence[Tensor]) -> object:
        """What the function returns, with these tensors in it."""
        return self._frame.filled(outputs)


def _silently(fn: Callable[..., object], inputs: list[Tensor]) -> fx.GraphModule:
    with silent():
        return graph_of(fn, inputs)


def _traced(fn: Callable[..., object], inputs: list[Tensor]) -> fx.GraphModule:
    try:
        # A check of numbers, of the user's own distributions too, would end the trace.
        with unvalidated(), LOCK, COMPILING, as_nodes():
            return undisturbed(lambda: _silently(fn, inputs))
    except PurepyroError:
        raise
    except (TypeError, NotImplementedError) as error:
        if not any(sign in str(error) for sign in _ODD):
            raise
        raise TraceError(
            "The function given to jit computes with a tensor that is no plain, dense one (a "
            f"subclass, or quantized), at {line_of(error)}. A graph holds plain ones only. Make "
            "one of it before, by tensor.as_subclass(torch.Tensor) or tensor.dequantize()."
        ) from error
    except RuntimeError as error:
        if "dynamo-optimized function" in str(error):
            raise TraceError(
                "The function given to jit calls one that torch.compile made, at "
                f"{line_of(error)}. jit traces a function itself, which ends there. Call the "
                "plain function: what jit compiles needs no torch.compile within."
            ) from error
        if not _asked_for_a_number(error):
            raise
        raise TraceError(
            "The function given to jit asks a tensor for its numbers, by `if`, `.item()`, "
            f"`float(...)`, `x[mask]` or the like, at {line_of(error)}. While a graph is traced "
            "it has none, and the graph would hold for these numbers only. Write "
            "torch.where(condition, a, b) in place of a branch or a mask, x[i[None]][0] in place "
            "of x[i] for a scalar tensor i, keep numbers as tensors, or pass what decides as a "
            "Python value."
        ) from error


_SIGNS = (
    "DataDependent",
    "DynamicOutputShape",
    "data-dependent",
    "get value out of a tracing tensor",
    "calling .item() on a Tensor",
    ".numpy() is not supported for tensor subclasses",
    ".tolist() is not supported for tensor subclasses",
)


# Of tensors of which torch knows nothing without their numbers.
_ODD = ("Multiple dispatch failed", "QuantizedMeta")


def _asked_for_a_number(error: RuntimeError) -> bool:
    """Whether a trace ended because a value was wanted."""
    text = f"{type(error).__name__} {error}"
    return any(sign in text for sign in _SIGNS)


def _refuse_global_draws(graph: fx.Graph) -> None:
    drawn = next((node for node in graph.nodes if is_random(node)), None)
    if drawn is not None:
        raise TraceError(
            f"The function given to jit draws from torch's global generator ({drawn.target}), of "
            "which a compiled function has none: it would draw other numbers than in eager mode. "
            "Draw from a key, by purepyro.random.normal(key, ...) and the like, or by torch's own "
            "functions within purepyro.random.keyed(key)."
        )


def _refuse_writes(
    module: fx.GraphModule, inputs: Sequence[Tensor], names: Callable[[], Sequence[str]]
) -> None:
    written = written_inputs(module.graph)
    if not written:
        return
    places = {node: place for place, node in enumerate(inputs_of(module.graph))}
    place = places.get(written[0])
    if place is None:
        held = cast("object", getattr(module, str(written[0].target), None))
        raise refuse_written("a tensor that it finds outside its arguments", describe(held))
    raise refuse_written(names()[place], describe(inputs[place]))
