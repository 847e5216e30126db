"""`sample`: a draw of a distribution from a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ._key import Key, check_key
from ._mode import draw
from ._reuse import consume


class _Distribution(Protocol):
    def __call__(self, sample_shape: torch.Size) -> Tensor: ...


def sample(key: Key, distribution: object, sample_shape: Sequence[int] = ()) -> Tensor:
    """One draw of a distribution."""
    checked = check_key(key, single=True)
    consume(checked, "sample")
    return draw(checked, lambda: distribution(torch.Size(sample_shape)))
