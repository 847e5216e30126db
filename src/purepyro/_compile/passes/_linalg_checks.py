"""Linear algebra that cannot fail half-way.

``torch.linalg.cholesky`` and its like look at a flag and raise. A graph cannot: where the flag says
that there is no result, the result is nan, and so is the loss, which a run looks at.
"""

from __future__ import annotations

from functools import partial
from operator import getitem
from typing import Any

import torch
from torch import fx

from ..._compat._tracing import aten, value_of


def without_checks(graph: fx.Graph) -> None:
    """Replace the checks of linear algebra by nan where there is no result."""
    for node in list(graph.nodes):
        if node.target is not aten._linalg_check_errors.default:
            continue
        info: Any = node.args[0]
        if info.target is getitem:
            _mark(graph, info)
        graph.erase_node(node)


def _is_other(node: fx.Node, user: fx.Node) -> bool:
    return user is not node


def _mark(graph: fx.Graph, info: fx.Node) -> None:
    """Let the results that come with ``info`` be nan where it is not zero."""
    source: Any = info.args[0]
    for result in [user for user in source.users if user.target is getitem and user is not info]:
        value = value_of(result)
        if not (value.is_floating_point() or value.is_complex()):
            continue
        after = max(result, info)  # in the order of the graph
        with graph.inserting_after(after):
            good = graph.call_function(aten.eq.Scalar, (info, 0))
        flag = value_of(info)
        shape = [*flag.shape, *[1] * (value.dim() - flag.dim())]
        with graph.inserting_after(good):
            wide = graph.call_function(aten.reshape.default, (good, shape))
        with graph.inserting_after(wide):
            marked = graph.call_function(aten.where.ScalarOther, (wide, result, torch.nan))
        good.meta["val"] = flag.new_empty(flag.shape, dtype=torch.bool)
        wide.meta["val"] = flag.new_empty(shape, dtype=torch.bool)
        marked.meta["val"] = value
        result.replace_all_uses_with(marked, delete_user_cb=partial(_is_other, marked))
