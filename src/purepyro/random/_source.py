"""Where the random calls of one block get their keys from."""

from __future__ import annotations

import numpy as np
import torch
from torch._C import _len_torch_dispatch_stack

from .._compat._functorch import outside_transforms
from ._bits._constants import CALLS
from ._bits._host import derived
from ._bits._native import KERNELS
from ._derive import fold_in_integer, name_hash, name_key
from ._key import Key, as_key

Words = tuple[int, int]


class KeySource:
    """The keys of successive random calls: the key itself, then `fold_in(key, CALLS + j)`.

    Args:
        key: The first of them.
        name: Take `name_key(key, name)` for the key; worked out when it is needed.
        words: The words of `key`, if they could be read. Draws then need no tensor for a key.
    """

    __slots__ = ("_key", "_name", "_words", "calls")

    def __init__(self, key: Key, name: str | None = None, words: Words | None = None) -> None:
        self._key = key
        self._name = name
        self._words = words
        if words is not None and name is not None:
            self._words = derived(words[0], words[1] + name_hash(name))
        self.calls = 0

    @property
    def key(self) -> Key:
        """The key that all others come from."""
        if self._name is not None:
            if self._words is None or _len_torch_dispatch_stack():
                self._key, self._name = name_key(self._key, self._name), None
            else:
                with outside_transforms():
                    words = np.array(self._words, dtype=np.int64)
                    self._key, self._name = as_key(torch.from_numpy(words)), None
        return self._key

    def next_key(self, device: torch.device | None = None) -> Key:
        """The key of the next random call, on `device`."""
        call = self.calls
        self.calls = call + 1
        found = self.key if call == 0 else fold_in_integer(self.key, CALLS + call)
        if device is None or device == found.device:
            return found
        return as_key(found.to(device))

    def next_words(self, device: torch.device) -> Words | None:
        """The words of the key of the next random call; `None` if a tensor has to do.

        That is where its words are not known, and where it would not be drawn from on the host.
        """
        words = self._words
        if (
            words is None
            or device.type != "cpu"
            or KERNELS is not None
            or _len_torch_dispatch_stack()
        ):
            return None
        call = self.calls
        self.calls = call + 1
        return words if call == 0 else derived(words[0], words[1] + CALLS + call)
