"""Which tensors of a run are the same in every run: those made of nothing but literals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..._core._trees import tensors_in

_AUGMENTED = re.compile("__i(add|sub|mul|truediv|floordiv|mod|pow|and|or|xor|lshift|rshift)__")
# What makes Python values, or shapes, of the elements of a tensor.
_READS = frozenset(
    (
        *("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__index__", "__float__"),
        *("__complex__", "__contains__", "is_nonzero", "equal", "allclose", "nonzero", "argwhere"),
        *("masked_select", "unique", "unique_consecutive"),
    )
)


class Constants(TorchFunctionMode):
    """A block of code in which tensors made of literals alone are known.

    All that was there before (arguments, parameters, tensors that a model closes over) may be
    another the next time, and so may all that was computed from it.
    """

    def __init__(self) -> None:
        super().__init__()
        # The tensor too, so that its id is not given to another one.
        self._made: dict[int, Tensor] = {}
        self._checks: dict[int, Tensor] = {}
        self._written = False
        self.reads = False

    def has(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` was made of literals, while no elements of another had been read."""
        return id(tensor) in self._made

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = list(tensors_in((args, kwargs)))
        constant = all(id(tensor) in self._made for tensor in given)
        result: object = func(*args, **(kwargs or {}))
        name = str(getattr(func, "__name__", ""))
        if name == "_is_all_true":
            # Whether the parameters of a distribution are legal decides about an error only.
            self._checks.update((id(tensor), tensor) for tensor in tensors_in(result))
        elif constant:
            if not (self.reads or self._written):
                self._made.update((id(tensor), tensor) for tensor in tensors_in(result))
        elif name == "__bool__" and id(given[0]) in self._checks:
            pass
        elif _reads(name, args):  # from here on Python values may differ as well
            self.reads = True
            self._made.clear()
        elif _writes(name, kwargs or {}):  # and here views of what was written to
            self._written = True
            self._made.clear()
        return result


def _reads(name: str, args: tuple[Any, ...]) -> bool:
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    return name in _READS


def _writes(name: str, kwargs: Mapping[str, Any]) -> bool:
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return in_place or kwargs.get("out") is not None or bool(_AUGMENTED.fullmatch(name))
