"""The data of all models, as NumPy arrays, the same for everyone."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

GROUPS, ROWS_A_GROUP = 1_000, 10


def regression(rows: int = 100) -> tuple[Array, ...]:
    """Three columns, and a line through them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 3))
    y = x @ np.array([1.0, 2.0, -1.0]) + 0.5 + 0.5 * rng.standard_normal(rows)
    return floats(x, y)


def groups() -> tuple[Array, ...]:
    """The group of each row, in no order, and its value."""
    rng = np.random.default_rng(0)
    means = 1.0 + 2.0 * rng.standard_normal(GROUPS)
    group = rng.permutation(np.repeat(np.arange(GROUPS), ROWS_A_GROUP))
    return (group, *floats(means[group] + 0.5 * rng.standard_normal(len(group))))


def curve() -> tuple[Array, ...]:
    """100 noisy points of a sine."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 10.0, 100)
    return floats(x, np.sin(x) + 0.2 * rng.standard_normal(100))


def sums() -> tuple[Array, ...]:
    """100 numbers around one."""
    return floats(1.0 + np.random.default_rng(0).standard_normal(100))


def floats(*arrays: Array) -> tuple[Array, ...]:
    """In the precision of all models."""
    return tuple(array.astype(np.float32) for array in arrays)
