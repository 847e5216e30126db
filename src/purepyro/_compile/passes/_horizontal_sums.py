"""Sums of alike terms, in one.

A density is the sum over sites of sums over each. Sites with the same kind of distribution have
terms that are computed alike, and so in one vector with one sum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from ..._compat._tracing import aten, value_of
from ._graph import Builder
from ._horizontal import Joiner, bare, likeness
from ._pack import SMALL

# Fewer terms are cheaper apart: a vector has to be written down before it is summed.
_MANY = 8


def join_sums(builder: Builder, joiner: Joiner) -> None:
    """Replace the sums that are added up in a graph, where their terms are alike."""
    for node in list(builder.graph.nodes):
        if _is_sum_of_two(node) and not any(_is_sum_of_two(user) for user in node.users):
            _join(builder, joiner, node)


def _join(builder: Builder, joiner: Joiner, root: fx.Node) -> None:
    groups: dict[object, list[fx.Node]] = {}
    for leaf in _leaves(root):
        terms = _terms(leaf)
        groups.setdefault(leaf if terms is None else likeness(terms), []).append(leaf)
    if all(len(group) < _MANY for group in groups.values()):
        return
    parts: list[fx.Node] = []
    for group in groups.values():
        if len(group) < _MANY:
            parts += group
            continue
        vector = joiner.joined([terms for leaf in group if (terms := _terms(leaf)) is not None])
        parts.append(_scalar(builder, root, aten.sum.default, vector))
    total = parts[0]
    for part in parts[1:]:
        total = _scalar(builder, root, aten.add.Tensor, total, part)
    root.replace_all_uses_with(total)


def _scalar(
    builder: Builder, like: fx.Node, operator: Callable[..., object], *args: fx.Node
) -> fx.Node:
    node = builder.call(operator, *args)
    node.meta["val"] = value_of(like)
    return node


def _is_sum_of_two(node: fx.Node) -> bool:
    """Whether a node adds two scalars."""
    return (
        node.target is aten.add.Tensor
        and not node.kwargs
        and all(isinstance(arg, fx.Node) and value_of(arg).dim() == 0 for arg in node.args)
    )


def _leaves(root: fx.Node) -> list[fx.Node]:
    """What is added up in the end."""
    found: list[fx.Node] = []
    stack: list[Any] = list(reversed(root.args))
    while stack:
        node = stack.pop()
        if _is_sum_of_two(node) and len(node.users) == 1:
            stack += reversed(node.args)
        else:
            found.append(node)
    return found


def _terms(node: fx.Node) -> fx.Node | None:
    """The terms of a sum over all of a small tensor."""
    found: fx.Node | None = None
    while node.target is aten.sum.default or _sums_all(node):
        inner: Any = node.args[0]
        node = found = bare(inner)
    if found is None or value_of(found).numel() > SMALL:
        return None
    return found


def _sums_all(node: fx.Node) -> bool:
    if node.target is not aten.sum.dim_IntList or node.kwargs:
        return False
    inner: Any = node.args[0]
    dims: Any = node.args[1]
    return bool(len(dims) == value_of(inner).dim())
