"""Pytrees, by optree: their tensors, their signature, and leaf-by-leaf arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import attrs
import optree
import torch
from torch import Tensor

T = TypeVar("T")

# Types registered by `torch.utils._pytree.register_pytree_node` are nodes too: those of optree's
# own registry and these. (`_compat/_tracing.py` has torch tell optree of them.)
_SPACE: Final = "torch"


def tensors_in(tree: object) -> Iterable[Tensor]:
    """The tensors among the leaves of a pytree."""
    if isinstance(tree, Tensor):  # most arguments and all parameters are just that
        return (tree,)
    leaves: list[object] = optree.tree_leaves(cast("Any", tree), namespace=_SPACE)
    return (leaf for leaf in leaves if isinstance(leaf, Tensor))


def signature(tree: object) -> Hashable | None:
    """The structure of a pytree with the shapes of its tensors; ``None`` if it cannot be hashed."""
    leaves: list[Any]
    leaves, structure = optree.tree_flatten(cast("Any", tree), namespace=_SPACE)
    try:
        parts = tuple(
            (leaf.shape, leaf.dtype, leaf.device)
            if isinstance(leaf, Tensor)
            else (type(leaf), leaf)
            for leaf in leaves
        )
        hash(parts)
    except (TypeError, RuntimeError):  # a nested tensor has no shape
        return None
    return structure, parts


def named_leaves(tree: object) -> dict[str, object]:
    """The leaves of a pytree by their path: ``opt_state/0/mu/1``.

    >>> named_leaves({"a": [1, 2], "b.c": (3,)})
    {'a/0': 1, 'a/1': 2, 'b.c/0': 3}
    """
    return dict(zip(leaf_names(tree), leaves_of(tree), strict=True))


def leaf_names(tree: object) -> list[str]:
    """The paths of the leaves, in the order of :func:`leaves_of`; odd keys can make two the same.

    >>> leaf_names({"a/b": 1, "a": {"b": 2}})
    ['a/b', 'a/b']
    """
    paths: Any = optree.tree_accessors
    return [
        "/".join(str(getattr(entry, "field", entry.entry)) for entry in accessor)
        for accessor in paths(tree, namespace=_SPACE)
    ]


def leaves_of(tree: object) -> list[object]:
    """The leaves of a pytree, in the order in which :func:`with_leaves` takes them."""
    return optree.tree_leaves(cast("Any", tree), namespace=_SPACE)


def with_leaves(tree: T, leaves: Sequence[object]) -> T:
    """A pytree of the structure of ``tree``, with other leaves, in the order of its own."""
    structure = structure_of(tree)
    return cast("T", optree.tree_unflatten(structure, cast("Any", leaves)))


def taken_apart(tree: object) -> tuple[list[object], object]:
    """The leaves of a pytree, and its structure."""
    leaves, structure = optree.tree_flatten(cast("Any", tree), namespace=_SPACE)
    return leaves, structure


def structure_of(tree: object) -> optree.PyTreeSpec:
    """The structure of a pytree, to compare, or to ``unflatten`` other leaves."""
    return optree.tree_structure(cast("Any", tree), namespace=_SPACE)


class _Place:
    """Stands for a tensor."""


_PLACE = _Place()


def _is_size(value: object) -> bool:
    """Whether this is the shape of a tensor, which torch would put together again as a tuple."""
    return type(value) is torch.Size


@attrs.frozen
class Frame(Generic[T]):
    """A pytree without its tensors; two are equal if all but the tensors is."""

    structure: Any
    leaves: tuple[object, ...]

    @classmethod
    def of(cls, tree: T) -> Frame[T]:
        """The frame of a pytree."""
        leaves, structure = optree.tree_flatten(cast("Any", tree), _is_size, namespace=_SPACE)
        places = (_PLACE if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return cls(structure, tuple(places))

    def filled(self, tensors: Sequence[Tensor]) -> T:
        """The pytree, with these tensors in it, in the order of its own."""
        leaves: Iterable[object] = tensors
        if len(tensors) < len(self.leaves):
            given = iter(tensors)
            leaves = [next(given) if leaf is _PLACE else leaf for leaf in self.leaves]
        tree: T = self.structure.unflatten(leaves)
        return tree


def where(condition: Tensor, new: T, old: T) -> T:
    """Leaf by leaf ``new`` where the condition, a scalar, holds, and ``old`` elsewhere."""

    def choose(new: object, old: object) -> object:
        both = isinstance(new, Tensor) and isinstance(old, Tensor)
        return torch.where(condition, cast("Any", new), cast("Any", old)) if both else new

    trees = cast("Any", (new, old))
    return cast("T", optree.tree_map(cast("Any", choose), *trees, namespace=_SPACE))


def mapped(fn: Callable[..., Tensor], tree: T, *others: T) -> T:
    """The tensors of a pytree through ``fn``, with those at the same place in the others."""

    def apply(leaf: object, *rest: object) -> object:
        return fn(leaf, *rest) if isinstance(leaf, Tensor) else leaf

    trees = cast("Any", (tree, *others))
    return cast("T", optree.tree_map(cast("Any", apply), *trees, namespace=_SPACE))


def scaled(tree: T, factor: Tensor) -> T:
    """All tensors of a pytree times a scalar; each keeps its dtype and device."""

    def scale(leaf: Tensor) -> Tensor:
        return leaf * factor.to(leaf)

    found = optree.tree_map(cast("Any", scale), cast("Any", tree), namespace=_SPACE)
    return cast("T", found)
