"""Independent streams within one random call."""

from __future__ import annotations

from ._constants import STREAMS
from ._derive import fold_in_integer
from ._key import Key


def stream(key: Key, number: int) -> Key:
    """Stream `number` of a call's key: a key far from all that the call draws from `key` itself."""
    return fold_in_integer(key, STREAMS + number)
