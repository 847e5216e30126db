"""Graphs without writes in place.

``torch.func.functionalize`` does this for every program, and doubles the time of the trace.
Optimisers write into tensors that they made themselves an operation ago: such a write is an
operation with a result, and only the rest is left to ``functionalize``.
"""

from __future__ import annotations

from torch import fx

from ..._compat._tracing import is_view, out_of_place, value_of, writes, written_by
from ..._errors import MutationError
from ._graph import viewed


def made_functional(graph: fx.Graph) -> bool:
    """Replace the writes in place; ``False`` if one is not plain, and nothing is to be trusted."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not writes(node):
            continue
        target = out_of_place(node)
        if target is None or not _is_plain(node, order):
            return False
        node.target = target
    return True


def written_inputs(graph: fx.Graph) -> list[fx.Node]:
    """The inputs, and tensors held by the graph, that it writes into."""
    return [
        root
        for node in graph.nodes
        if writes(node)
        for owner in written_by(node)
        if (root := _root(owner)).op in ("placeholder", "get_attr")
    ]


def _root(node: fx.Node) -> fx.Node:
    """The node that made the memory of ``node``."""
    while True:
        below = written_by(node)[0] if writes(node) else viewed(node)
        if below is None:
            return node
        node = below


def _is_plain(node: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether the written tensor is an operation's own result that nobody else sees any more."""
    base = node.args[0]
    if not isinstance(base, fx.Node) or base.op != "call_function" or is_view(base):
        return False
    if any(
        user is not node and (order[user] > order[node] or is_view(user)) for user in base.users
    ):
        return False
    written = value_of(base)
    others = [value_of(each) for each in node.all_input_nodes if each is not base]
    # A scalar of a wider dtype widens the result of another scalar, but not what it is written to.
    return all(
        other.dtype == written.dtype or (other.ndim == 0 and written.ndim > 0) for other in others
    )


def refuse_written(name: str, what: str) -> MutationError:
    """The error for an input that a traced function writes into."""
    return MutationError(
        f"The function given to jit changes {name} ({what}) in place. A compiled function is pure: "
        "it would change it at some calls and not at others. Write the operation without the "
        "trailing underscore (x = x + 1 in place of x.add_(1)), or work on x.clone(). Nothing was "
        "changed so far."
    )
