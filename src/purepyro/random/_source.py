"""Where the random calls of one block get their keys from."""

from __future__ import annotations

import torch

from ._bits._constants import CALLS
from ._derive import fold_in_integer
from ._key import Key, as_key


class KeySource:
    """The keys of successive random calls: the key itself, then `fold_in(key, CALLS + j)`."""

    __slots__ = ("calls", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.calls = 0

    def next_key(self, device: torch.device | None = None) -> Key:
        """The key of the next random call, on `device`."""
        call = self.calls
        self.calls = call + 1
        found = self.key if call == 0 else fold_in_integer(self.key, CALLS + call)
        if device is None or device == found.device:
            return found
        return as_key(found.to(device))
