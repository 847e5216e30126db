"""The constants that define Philox4x32-10 and the layout of purepyro's streams."""

from __future__ import annotations

from typing import Final

MASK32: Final = 0xFFFFFFFF
MASK64: Final = 0xFFFFFFFFFFFFFFFF

ROUNDS: Final = 10
# Salmon et al. (2011), table 2 and section 3.3: the multipliers of the round and the steps of the
# key schedule (the golden ratio and the square root of three, less one).
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)

# A draw reads the blocks from its key's offset on. Keys that the library derives for itself come
# from far above, where no draw of a sane size reaches: later random calls of one thunk, and the
# streams within one call.
CALLS: Final = 1 << 62
STREAMS: Final = 1 << 61
