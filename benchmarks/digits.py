"""The digits of scikit-learn, apart from the other data since its import takes long."""

from __future__ import annotations

import numpy as np
from data import Array, floats
from sklearn.datasets import load_digits


def digits() -> tuple[Array, ...]:
    """1,797 pictures of 64 points, and which digit each shows."""
    pictures = load_digits()
    return (*floats(pictures.data / 16.0), pictures.target.astype(np.int64))
