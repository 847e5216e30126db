"""Random numbers as a function of an explicit key."""

from __future__ import annotations

from ._derive import fold_in, name_key, split
from ._draws import bits, normal, permutation, randint, uniform
from ._key import Key, key
from ._mode import keyed
from ._reuse import forbid_reuse
from ._sample import sample

__all__ = [
    "Key",
    "bits",
    "fold_in",
    "forbid_reuse",
    "key",
    "keyed",
    "name_key",
    "normal",
    "permutation",
    "randint",
    "sample",
    "split",
    "uniform",
]
