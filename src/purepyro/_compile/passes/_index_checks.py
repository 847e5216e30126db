"""Indices of a graph, checked.

Compiled code reads and writes wherever an index points to. Here an index that is out of range is
replaced by the nearest that is not, and told by a number that the graph returns beside its results:
whoever runs it raises an error in place of these. Indices that are in range whatever the data are
left as they are.

Inductor has checks of its own, which end the process where a kernel runs in several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor, fx

from ..._compat._tracing import aten, value_of
from ..._errors import OutOfRangeError
from .._source_lines import plain_name
from ._graph import outputs_of
from ._index_bounds import Bounds, bounds
from ._materialize import KEPT

# What an operator of a graph is given: as untyped as torch has it.
Argument: TypeAlias = Any

# So many checks can be told apart, and indices up to so large be named.
_PLACES = 1 << 12
_LARGEST = 1 << 48


class _Index(NamedTuple):
    """An index among the arguments of an operator.

    Attributes:
        node: The index.
        size: How many elements there are to choose from.
        low: The smallest index allowed: 0, or ``-size`` where torch counts from the end too.
        other: One more number that is allowed.
    """

    node: fx.Node
    size: int
    low: int
    other: int | None = None


@attrs.frozen
class Check:
    """What is known of a check when its graph is made.

    Attributes:
        size: How many elements there are to choose from.
        low: The smallest index allowed.
        operator: The name of the operator.
        line: The line of the user's code; empty if it is not known.
    """

    size: int
    low: int
    operator: str
    line: str

    def error(self, index: int | None) -> OutOfRangeError:
        """The error for an index."""
        seen = "There is an index" if index is None else f"Index {index} is"
        where = f" at {self.line}" if self.line else ""
        allowed = f"{self.low} to {self.size - 1}" if self.size else "none"
        return OutOfRangeError(
            f"{seen} out of range for a dimension of {self.size} elements, in "
            f"torch's `{self.operator}`{where}; allowed are {allowed}. There is no such element, "
            "so the results of this compiled call were thrown away. Look at the indices: they "
            "count from 0; torch.unique(index, return_inverse=True)[1] makes such ones of any "
            "labels. Or make the indexed tensor as long as they need."
        )


class Checks(NamedTuple):
    """The checks of a graph, whose last outputs are a number for each of them: zero if all is well.

    The numbers say which check it was, and what index: see :meth:`raise_for`.
    """

    known: tuple[Check, ...]

    def raise_for(self, number: int) -> None:
        """Raise the error that a number stands for, if it does."""
        if number:
            place, index = number % _PLACES, number // _PLACES
            found = index // 2 if index % 2 else -(index // 2)
            raise self.known[place].error(found if abs(found) < _LARGEST else None)


def with_checked_indices(graph: fx.Graph, lines: Sequence[tuple[str, str]]) -> Checks:
    """Check the indices of a graph, and append a number for each check to its outputs.

    Args:
        graph: The graph, whose nodes know their values.
        lines: Where the operators with indices were called, in order.
    """
    writer = _Writer(graph, lines)
    for node in list(graph.nodes):
        if node.op == "call_function" and plain_name(node.target) in INDEXED:
            writer.check(node)
    writer.finish()
    return Checks(tuple(writer.checks))


def combine(graph: fx.Graph, *groups: Sequence[fx.Node]) -> None:
    """Have a graph return one number for each group of those that it returns at its end.

    It is the first that is not zero. Of a group without numbers nothing is returned.
    """
    outputs = outputs_of(graph)
    rest = outputs[: len(outputs) - sum(map(len, groups))]
    last = next(node for node in reversed(graph.nodes) if node.op == "output")
    with graph.inserting_before(last):
        last.args = ([*rest, *(_first(graph, group) for group in groups if group)],)


def _first(graph: fx.Graph, numbers: Sequence[fx.Node]) -> fx.Node:
    """The first of several numbers that is not zero."""
    total, *others = numbers
    if others:
        device = value_of(total).device
        for number in others:
            if value_of(number).device != device:
                number = _call(graph, aten._to_copy.default, number, device=device)
            clear = _call(graph, aten.eq.Scalar, total, 0, dtype=torch.bool)
            total = _call(graph, aten.where.self, clear, number, total, dtype=torch.int64)
    return total


class _Writer:
    """Writes checks into a graph."""

    def __init__(self, graph: fx.Graph, lines: Sequence[tuple[str, str]]) -> None:
        self.checks: list[Check] = []
        self._graph = graph
        self._numbers: list[fx.Node] = []
        self._lines: dict[str, list[str]] = {}
        for name, line in lines:
            self._lines.setdefault(name, []).append(line)
        self._counts = dict.fromkeys(self._lines, 0)
        self._known: dict[fx.Node, Bounds | None] = {}
        self._done: dict[_Index, fx.Node] = {}

    def check(self, node: fx.Node) -> None:
        """Check the indices of an operator."""
        name = plain_name(node.target)
        line = self._line(name)
        for index in _indices(node):
            if self._is_safe(index):
                continue
            if index not in self._done:
                with self._graph.inserting_before(node):
                    self._done[index] = self._checked(
                        index, Check(index.size, index.low, name, line)
                    )
            self._replace(node, index.node, self._done[index])

    def finish(self) -> None:
        """Append the numbers to the graph's outputs."""
        last = next(node for node in reversed(self._graph.nodes) if node.op == "output")
        last.args = ([*outputs_of(self._graph), *self._numbers],)

    def _line(self, name: str) -> str:
        found, at = self._lines.get(name, []), self._counts.get(name, 0)
        self._counts[name] = at + 1
        return found[at] if at < len(found) else ""

    def _is_safe(self, index: _Index) -> bool:
        """Whether the graph itself says that an index is in range."""
        if value_of(index.node).numel() == 0:
            return True
        found = bounds(index.node, self._known)
        return found is not None and index.low <= found[0] and found[1] < index.size

    def _checked(self, index: _Index, check: Check) -> fx.Node:
        """The index, nowhere out of range; the graph gets a number that tells whether it was."""
        if index.size == 0:
            raise check.error(None)
        place = min(len(self.checks), _PLACES - 1)
        self.checks.append(check)
        call = partial(_call, self._graph)
        given, left_out = index.node, None
        if index.other is not None:  # which is as good as zero
            left_out = call(aten.eq.Scalar, given, index.other, dtype=torch.bool)
            given = call(aten.masked_fill.Scalar, given, left_out, 0)
        high = self._extreme(aten.amax.default, given)
        low = self._extreme(aten.amin.default, given)
        # Indices below zero become even numbers, others odd ones: all of them above zero.
        above = call(aten.add.Tensor, call(aten.mul.Tensor, high, 2), 1)
        below = call(aten.mul.Tensor, low, -2)
        is_below = call(aten.lt.Scalar, low, index.low, dtype=torch.bool)
        told = call(aten.mul.Tensor, below, is_below)
        is_above = call(aten.ge.Scalar, high, index.size, dtype=torch.bool)
        told = call(aten.where.self, is_above, above, told, dtype=torch.int64)
        number = call(aten.mul.Tensor, told, _PLACES)
        if place:
            on = call(aten.gt.Scalar, told, 0, dtype=torch.bool)
            number = call(aten.mul.Tensor, call(aten.add.Tensor, number, place), on)
        self._numbers.append(number)
        safe = call(aten.clamp.default, given, index.low, index.size - 1)
        if left_out is not None:
            safe = call(aten.masked_fill.Scalar, safe, left_out, index.other)
        # Written down: what follows reads it as it would have read the index itself.
        return call(KEPT, safe)

    def _extreme(self, operator: Callable[..., object], given: fx.Node) -> fx.Node:
        """The largest or the smallest index, as far as it can be told."""
        found = _call(self._graph, operator, given)
        found.meta["val"] = value_of(given).new_empty(())
        wide = _call(self._graph, aten._to_copy.default, found, dtype=torch.int64)
        return _call(self._graph, aten.clamp.default, wide, -_LARGEST, _LARGEST)

    def _replace(self, node: fx.Node, old: fx.Node, new: fx.Node) -> None:
        """Let an operator take another index; where it takes it as data too, that stays."""
        schema: Any = node.target
        args, kwargs = list(node.args), dict(node.kwargs)
        for place, argument in enumerate(schema._schema.arguments):
            if argument.name not in _ARGUMENTS:
                continue
            if place < len(args):
                args[place] = _exchanged(args[place], old, new)
            elif argument.name in kwargs:
                kwargs[argument.name] = _exchanged(kwargs[argument.name], old, new)
        node.args, node.kwargs = tuple(args), kwargs


def _exchanged(given: Argument, old: fx.Node, new: fx.Node) -> Argument:
    if isinstance(given, (tuple, list)):
        found: Argument = [new if each is old else each for each in given]
        return found
    return new if given is old else given


def _call(graph: fx.Graph, operator: Callable[..., object], *args: Any, **kwargs: Any) -> fx.Node:
    """A new node of the shape of its first argument that is a node."""
    first: Any = next(arg for arg in args if isinstance(arg, fx.Node))
    like = value_of(first)
    dtype = kwargs.get("dtype", like.dtype)
    own = {} if operator is not aten._to_copy.default else kwargs
    node = graph.call_function(operator, args, own)
    node.meta["val"] = torch.empty_like(like, dtype=dtype, device=kwargs.get("device"))
    return node


def _given(node: fx.Node, name: str) -> Argument:
    """An argument of an operator, by its name."""
    target: Any = node.target
    for place, argument in enumerate(target._schema.arguments):
        if argument.name == name and place < len(node.args):
            return node.args[place]
    return node.kwargs.get(name)


def _indices(node: fx.Node) -> Iterator[_Index]:
    """The indices of an operator of the table."""
    for index in INDEXED[plain_name(node.target)](node):
        if isinstance(index.node, fx.Node):
            value = value_of(index.node)
            if isinstance(value, Tensor) and value.dtype is not torch.bool:
                yield index


def _of_many(node: fx.Node) -> Iterator[_Index]:
    """``x[i, :, j]``: an index, or a mask, for a dimension each."""
    given: Any = node.args[0]
    dim, shape = 0, value_of(given).shape
    for index in _given(node, "indices"):
        taken = 1
        if index is not None and value_of(index).dtype in (torch.bool, torch.uint8):
            taken = value_of(index).dim()
        elif index is not None:
            yield _Index(index, shape[dim], -shape[dim])
        dim += taken


def _along(from_end: bool) -> Callable[[fx.Node], Iterator[_Index]]:
    """Along a dimension."""

    def found(node: fx.Node) -> Iterator[_Index]:
        shape = value_of(_given(node, "self")).shape
        size = shape[_given(node, "dim")] if shape else 1
        yield _Index(_given(node, "index"), size, -size if from_end else 0)

    return found


def _of_all(node: fx.Node) -> Iterator[_Index]:
    """Into a tensor as if it were a vector."""
    size = value_of(_given(node, "self")).numel()
    yield _Index(_given(node, "index"), size, -size)


def _of_rows(node: fx.Node) -> Iterator[_Index]:
    yield _Index(_given(node, "indices"), value_of(_given(node, "weight")).shape[0], 0)


def _of_rows_before(node: fx.Node) -> Iterator[_Index]:
    yield _Index(_given(node, "indices"), _given(node, "num_weights"), 0)


def _of_classes(node: fx.Node) -> Iterator[_Index]:
    """Classes, of which one may be left out."""
    shape = value_of(_given(node, "self")).shape
    size = shape[1] if len(shape) > 1 else shape[0]
    yield _Index(_given(node, "target"), size, 0, _given(node, "ignore_index"))


def _of_several_classes(node: fx.Node) -> Iterator[_Index]:
    """Classes, which end where one is -1."""
    yield _Index(_given(node, "target"), value_of(_given(node, "self")).shape[-1], -1)


def _of_places(node: fx.Node) -> Iterator[_Index]:
    """Places in the last dimensions of the result."""
    yield _Index(_given(node, "indices"), prod(_given(node, "output_size")), 0)


def _of_order(node: fx.Node) -> Iterator[_Index]:
    sequence = _given(node, "sorted_sequence")
    yield _Index(_given(node, "sorter"), value_of(sequence).shape[-1], 0)


# The arguments that are indices.
_ARGUMENTS = frozenset({"indices", "index", "target", "sorter"})

# The operators with indices, by their names without trailing underscores.
INDEXED: Mapping[str, Callable[[fx.Node], Iterator[_Index]]] = {
    "index": _of_many,
    "_unsafe_index": _of_many,
    "index_put": _of_many,
    "_unsafe_index_put": _of_many,
    "_index_put_impl": _of_many,
    "gather": _along(from_end=False),
    "scatter": _along(from_end=False),
    "scatter_add": _along(from_end=False),
    "scatter_reduce": _along(from_end=False),
    "index_select": _along(from_end=False),
    "index_add": _along(from_end=False),
    "index_copy": _along(from_end=False),
    "index_reduce": _along(from_end=False),
    "index_fill": _along(from_end=True),
    "take": _of_all,
    "put": _of_all,
    "embedding": _of_rows,
    "_embedding_bag": _of_rows,
    "_embedding_bag_forward_only": _of_rows,
    "embedding_dense_backward": _of_rows_before,
    "nll_loss_forward": _of_classes,
    "nll_loss_backward": _of_classes,
    "nll_loss2d_forward": _of_classes,
    "nll_loss2d_backward": _of_classes,
    "multi_margin_loss": _of_classes,
    "multi_margin_loss_backward": _of_classes,
    "multilabel_margin_loss_forward": _of_several_classes,
    "multilabel_margin_loss_backward": _of_several_classes,
    "max_unpool2d": _of_places,
    "max_unpool3d": _of_places,
    "searchsorted": _of_order,
}
