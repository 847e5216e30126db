"""Results that are written down.

Inductor computes anew, wherever it is used, what it takes for cheap: say, a dozen products and
sums for each activation of a layer. A result behind this node is computed once, and has memory of
its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.library import Library, register_fake, register_vmap


def keep(node: fx.Node) -> None:
    """Have the result of a node written down."""
    users = list(node.users)
    with node.graph.inserting_after(node):
        kept = node.graph.call_function(KEPT, (node,))
    kept.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, kept)


def _clone(value: Tensor) -> Tensor:
    return value.clone()


def _under_vmap(info: object, in_dims: tuple[int | None], value: Tensor) -> tuple[Tensor, object]:
    return KEPT(value), in_dims[0]


_make: Any = Library  # which torch leaves untyped
_LIBRARY = _make("purepyro", "FRAGMENT")
_LIBRARY.define("kept(Tensor value) -> Tensor")
_LIBRARY.impl("kept", _clone, "CompositeExplicitAutograd")
register_fake("purepyro::kept", _clone, lib=_LIBRARY)
register_vmap("purepyro::kept", _under_vmap, lib=_LIBRARY)

KEPT: Any = torch.ops.purepyro.kept.default
