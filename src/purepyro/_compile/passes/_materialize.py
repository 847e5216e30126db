"""Results that are materialized: computed once, into memory.

Inductor computes anew, wherever it is used, what it takes for cheap: say, a dozen products and
sums for each activation of a layer. A result behind this node has memory of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.library import Library, register_fake, register_vmap


def materialize(node: fx.Node) -> None:
    """Have the result of a node materialized."""
    users = list(node.users)
    with node.graph.inserting_after(node):
        stored = node.graph.call_function(MATERIALIZE, (node,))
    stored.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, stored)


def _clone(value: Tensor) -> Tensor:
    return value.clone()


def _under_vmap(info: object, in_dims: tuple[int | None], value: Tensor) -> tuple[Tensor, object]:
    return MATERIALIZE(value), in_dims[0]


_make: Any = Library  # which torch leaves untyped
_LIBRARY = _make("purepyro", "FRAGMENT")
_LIBRARY.define("materialize(Tensor value) -> Tensor")
_LIBRARY.impl("materialize", _clone, "CompositeExplicitAutograd")
register_fake("purepyro::materialize", _clone, lib=_LIBRARY)
register_vmap("purepyro::materialize", _under_vmap, lib=_LIBRARY)

MATERIALIZE: Any = torch.ops.purepyro.materialize.default
