"""Where the random calls of one block get their keys from."""

from __future__ import annotations

import torch

from ._bits._constants import CALLS
from ._derive import fold_in_integer, name_key
from ._key import Key, as_key


class KeySource:
    """The keys of successive random calls: the key itself, then `fold_in(key, CALLS + j)`.

    Args:
        key: The first of them.
        name: Take `name_key(key, name)` for the key; worked out when it is needed.
    """

    __slots__ = ("_key", "_name", "calls")

    def __init__(self, key: Key, name: str | None = None) -> None:
        self._key = key
        self._name = name
        self.calls = 0

    @property
    def key(self) -> Key:
        """The key that all others come from."""
        if self._name is not None:
            self._key, self._name = name_key(self._key, self._name), None
        return self._key

    def next_key(self, device: torch.device | None = None) -> Key:
        """The key of the next random call, on `device`."""
        call = self.calls
        self.calls = call + 1
        found = self.key if call == 0 else fold_in_integer(self.key, CALLS + call)
        if device is None or device == found.device:
            return found
        return as_key(found.to(device))
