"""Random numbers as a function of an explicit key.

Where to look: `_key`, `_derive` and `_draws` are what users call; `_bits` makes words and values
of keys; `_mode` redirects torch's random functions to the versions in `_primitives`; `_sample`
draws distributions, those that cannot be redirected by the versions in `_distributions`.
"""

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
