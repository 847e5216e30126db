"""Sums of alike terms, in one.

A density is the sum over sites of sums over each. Sites with the same kind of distribution have
terms that are computed alike, and so in one vector with one sum.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from ..._compat._tracing import aten, value_of
from ._graph import Builder
from ._horizontal import HorizontalFuser, fusion_key, strip_reshapes
from ._pack import SMALL

# Fewer terms are cheaper apart: a vector has to be stored before it is summed.
_MANY = 8


def fuse_sums(builder: Builder, fuser: HorizontalFuser) -> None:
    """Replace the sums that are added up in a graph, where their terms are alike."""
    for root in list(builder.graph.nodes):
        if not _adds_two(root) or any(map(_adds_two, root.users)):
            continue
        groups: dict[object, list[fx.Node]] = {}
        for leaf in _leaves(root):
            terms = _terms(leaf)
            groups.setdefault(fusion_key(terms or leaf), []).append(leaf)
        if all(len(group) < _MANY for group in groups.values()):
            continue
        total, *parts = [part for group in groups.values() for part in _sums(builder, fuser, group)]
        for part in parts:
            total = builder.call(aten.add.Tensor, total, part)
        root.replace_all_uses_with(total)


def _sums(builder: Builder, fuser: HorizontalFuser, group: list[fx.Node]) -> list[fx.Node]:
    """A group of terms, as one sum if they are many."""
    terms = [each for leaf in group if (each := _terms(leaf)) is not None]
    if len(terms) < _MANY:
        return group
    return [builder.call(aten.sum.default, fuser.joined(terms))]


def _adds_two(node: fx.Node) -> bool:
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
        if _adds_two(node) and len(node.users) == 1:
            stack += reversed(node.args)
        else:
            found.append(node)
    return found


def _terms(node: fx.Node) -> fx.Node | None:
    """The terms of a sum over all of a small tensor."""
    found: fx.Node | None = None
    while node.target is aten.sum.default or _sums_all(node):
        inner: Any = node.args[0]
        node = found = strip_reshapes(inner)
    return None if found is None or value_of(found).numel() > SMALL else found


def _sums_all(node: fx.Node) -> bool:
    if node.target is not aten.sum.dim_IntList or node.kwargs:
        return False
    inner: Any = node.args[0]
    dims: Any = node.args[1]
    return bool(len(dims) == value_of(inner).dim())
