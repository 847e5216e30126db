"""Whole numbers as users have them: Python's, numpy's, and whatever else is an index."""

from __future__ import annotations

from operator import index
from typing import SupportsIndex

from torch import Tensor


def whole(value: object, least: int | None = None) -> int | None:
    """The whole number that a value is; ``None`` if it is none, or below ``least``.

    A truth value is none, since it stands for no count. Nor is a tensor: it may have no value yet.

    >>> import numpy as np
    >>> whole(3), whole(np.int64(3)), whole(3, 4), whole(3.0), whole(True)
    (3, 3, None, None, None)
    """
    if type(value) is int:
        number = value
    elif isinstance(value, SupportsIndex) and not isinstance(value, bool | Tensor):
        try:
            number = index(value)
        except TypeError:  # an array of several has the method too
            return None
    else:
        return None
    return number if least is None or number >= least else None


def as_int(value: int) -> int:
    """A value as a plain int if it is a whole number, and as it is if not; a converter of fields.

    >>> import numpy as np
    >>> as_int(np.int64(3))
    3
    """
    number = whole(value)
    return value if number is None else number


def as_int_or_none(value: int | None) -> int | None:
    """:func:`as_int`, of a field that may be ``None``."""
    return None if value is None else as_int(value)
