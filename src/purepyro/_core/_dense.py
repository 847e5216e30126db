"""What a tensor has to be, so that its elements can be computed with one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import DtypeError, describe


def not_dense(tensor: Tensor) -> tuple[str, str] | None:
    """What a tensor is instead of a dense one, and what to write; ``None`` for a dense one.

    >>> not_dense(torch.zeros(2).to_sparse())
    ('of the layout torch.sparse_coo', 'Write value.to_dense().')
    """
    if tensor.is_nested:
        return "a nested tensor", "Pad it, torch.nested.to_padded_tensor(value, 0.0), and mask it."
    if tensor.layout is not torch.strided:
        return f"of the layout {tensor.layout}", "Write value.to_dense()."
    if tensor.is_quantized:
        return "quantised", "Write value.dequantize()."
    return None


def require_real(tensor: Tensor, what: str) -> None:
    """Refuse a value of a site, or a parameter, that has no density by element.

    Raises:
        DtypeError: if it is complex, or not dense.
    """
    if tensor.dtype.is_complex:
        raise DtypeError(
            f"The {what} is {describe(tensor)}, and a density of complex values is none of real "
            "ones, nor are its gradients. Give the real and imaginary parts as real tensors, "
            "torch.view_as_real(value)."
        )
    fault = not_dense(tensor)
    if fault is not None:
        raise DtypeError(
            f"The {what} is {describe(tensor)}, {fault[0]}. Densities, draws and gradients are of "
            f"dense tensors. {fault[1]}"
        )
