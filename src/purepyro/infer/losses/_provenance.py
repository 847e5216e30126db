"""Which draws a tensor depends on, seen by following tensors through torch functions.

Pyro wraps the tensors in a subclass of its own, which ``torch.func`` does not take. Here a function
mode takes notes on the side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..._compat._pyro import Msg, is_subsample, message_distribution, message_infer, message_value
from ..._core._trees import tensors_in

Names = frozenset[str]
NONE: Names = frozenset()
_AUGMENTED = re.compile("__i(add|sub|mul|truediv|floordiv|mod|pow|and|or|xor|lshift|rshift)__")


class Provenance(TorchFunctionMode):
    """A block of code in which every tensor keeps the names of the draws it was computed from."""

    def __init__(self) -> None:
        super().__init__()
        # The tensor too, so that its id is not given to another one.
        self._notes: dict[int, tuple[Tensor, Names]] = {}

    def of(self, *tree: object) -> Names:
        """The draws that the tensors of a tree depend on."""
        found = (self._notes.get(id(tensor)) for tensor in tensors_in(tree))
        return NONE.union(*(note[1] for note in found if note is not None))

    def add(self, tensor: Tensor, names: Names) -> None:
        """Note that ``tensor`` depends on the draws ``names``, besides those known."""
        if names:
            self._notes[id(tensor)] = (tensor, names | self.of(tensor))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))
        names = self.of(args, kwargs) if self._notes else NONE
        if names:
            given = {id(tensor) for tensor in tensors_in((args, kwargs))}
            for tensor in tensors_in(result):
                # A tensor that is handed through (by `broadcast_tensors`, say) is what it was.
                if id(tensor) not in given:
                    self.add(tensor, names)
            for tensor in _written(func, args, kwargs or {}):
                self.add(tensor, names)
        return result


def _written(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterable[Tensor]:
    """The tensors that a function changes in place."""
    name = str(getattr(func, "__name__", ""))
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    target = args[:1] if in_place or _AUGMENTED.fullmatch(name) else ()
    return tensors_in((target, kwargs.get("out")))


class Marking(Messenger):
    """Marks the draws of a guide: each depends on itself, and on what its distribution does.

    A reparameterised draw has a gradient, so it is no source, only a link: keyed draws are made
    where no function mode looks, but the density at the draw shows what it depends on.

    Args:
        provenance: Where to keep the notes.
        check: Called with the name and the ``infer`` settings of each site.
    """

    def __init__(
        self, provenance: Provenance, check: Callable[[str, Mapping[str, object]], None]
    ) -> None:
        super().__init__()
        self._provenance = provenance
        self._check = check

    def _pyro_post_sample(self, msg: Msg) -> None:
        if msg["is_observed"] or is_subsample(msg["fn"]):
            return
        name, fn, value = str(msg["name"]), message_distribution(msg), message_value(msg)
        self._check(name, message_infer(msg))
        names = self._provenance.of(fn.log_prob(value))
        self._provenance.add(value, names if fn.has_rsample else names | {name})
