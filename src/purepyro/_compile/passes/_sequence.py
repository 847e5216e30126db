"""What is rewritten in every graph that is compiled."""

from __future__ import annotations

from torch import fx

from ._small_products import with_small_products_fused
from ._tanh import with_quick_tanh
from ._transposed_products import with_rows_innermost


def tune(graph: fx.Graph) -> None:
    """Rewrite operations into others, of the same result, that are quicker on the CPU.

    In this order: a product that has become a sum needs no layout, and a tanh is taken in the
    layout of the product before it.
    """
    with_small_products_fused(graph)
    with_rows_innermost(graph)
    with_quick_tanh(graph)
