"""Starting values of a member, and the look whether any member could have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from torch import Tensor

from .._errors import SupportError
from ..infer import SVI, SVIState
from ..infer.svi._nonfinite import Batch
from ..random import Key
from ..random._reuse import unchecked

P = ParamSpec("P")


def started(svi: SVI[P], key: Tensor, own: Batch) -> SVIState:
    """The state of one member before its first step; its key was consumed with all others."""
    init: Callable[..., SVIState] = svi.init
    with unchecked():
        return init(Key(key), *own.args, **own.kwargs)


def require_one_good(start: Callable[[int], object], count: int) -> None:
    """Refuse data or a model with which no member could start: the first that can will do.

    Raises:
        SupportError: if all fail; as SVI words it, for the first.
    """
    first: SupportError | None = None
    for i in range(count):
        try:
            start(i)
        except SupportError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first
