"""Pyro's plates: which are open, and what they say of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from pyro.infer.util import MultiFrameTensor
from pyro.ops.tensor_utils import periodic_repeat
from pyro.poutine.indep_messenger import CondIndepStackFrame, IndepMessenger
from pyro.poutine.markov_messenger import MarkovMessenger
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor

from ._handlers import handlers, plate_dims
from ._messages import IS_DETERMINISTIC, Msg
from ._private import held, private

Plates: TypeAlias = tuple[CondIndepStackFrame, ...]

_INDEX_DRAW: Any = private("pyro.poutine.subsample_messenger:_Subsample", "plates")

# The plates by which Pyro's algorithms run a whole model several times at once. They repeat the
# model; they are none of its own.
_REPETITIONS = frozenset(
    {"num_particles_vectorized", "num_sleep_particles_vectorized", "_num_predictive_samples"}
)
# What is said of the rows of a plate, if it is said inside one.
_OF_ROWS = (IndepMessenger, MarkovMessenger, MaskMessenger, ScaleMessenger)


def _opens_plate(handler: Messenger) -> bool:
    return isinstance(handler, IndepMessenger) and handler.name not in _REPETITIONS


def in_plate() -> bool:
    """Whether a plate of the model is open."""
    for handler in handlers():
        if isinstance(handler, IndepMessenger) and handler.name not in _REPETITIONS:
            return True
    return False


@contextmanager
def outside_plates() -> Iterator[None]:
    """A block of code that runs as if it stood before the outermost plate of the model.

    The plates themselves do not apply, nor do the masks, scales and Markov contexts inside them.
    Other handlers (conditions, traces) do.
    """
    stack, allocated = handlers(), plate_dims()
    plates = [i for i, handler in enumerate(stack) if _opens_plate(handler)]
    hidden = {
        i: handler
        for i, handler in enumerate(stack)
        if plates and i >= plates[0] and isinstance(handler, _OF_ROWS)
        if not isinstance(handler, IndepMessenger) or _opens_plate(handler)
    }
    dims = allocated[:]
    for i in hidden:
        stack[i] = Messenger()
    allocated[:] = [name if name in _REPETITIONS else None for name in dims]
    try:
        yield
    finally:
        allocated[:] = dims
        for i, handler in hidden.items():
            stack[i] = handler


class Watch(Messenger):
    """Takes note of the plates that one sample statement is in."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.plates: Plates = ()
        self.computed = False

    def _postprocess_message(self, msg: Msg) -> None:
        if msg["type"] == "sample" and msg["name"] == self._name:
            stack: Plates = msg["cond_indep_stack"]
            self.plates = tuple(frame for frame in stack if frame.name not in _REPETITIONS)
            self.computed = bool((msg["infer"] or {}).get(IS_DETERMINISTIC))


def is_subsample(fn: object) -> bool:
    """Whether ``fn`` is the index draw of a plate."""
    return type(fn) is _INDEX_DRAW


def is_full_plate(fn: Any) -> bool:
    """Whether ``fn`` is the index draw of a plate that is not subsampled: no randomness in it."""
    if not isinstance(fn, _INDEX_DRAW):
        return False
    return bool(fn.subsample_size is None or fn.subsample_size >= fn.size)


def is_empty_plate(fn: Any) -> bool:
    """Whether ``fn`` is the index draw of a plate of size zero, which Pyro does not know."""
    return isinstance(fn, _INDEX_DRAW) and bool(fn.size == 0)


def plate_rows(fn: Any) -> int | None:
    """How many rows the plate of this index draw says it takes; ``None`` if it does not say."""
    rows: int | None = fn.subsample_size if isinstance(fn, _INDEX_DRAW) else None
    return rows


def plate_indices() -> dict[str, Tensor]:
    """The indices of all plates that are open, by name; those without a size have none."""
    found: dict[str, Tensor] = {}
    for handler in handlers():
        if isinstance(handler, SubsampleMessenger):
            indices = _indices(handler)
            if indices is not None:
                found[handler.name] = torch.as_tensor(indices)
    return found


def indices_of(plate: SubsampleMessenger) -> Tensor:
    """The indices of a plate with a size."""
    return torch.as_tensor(_indices(plate))


def _indices(plate: SubsampleMessenger) -> Any:
    return held(plate, "_indices", "the indices of a plate")


def summed_to(plates: Plates, terms: Iterable[tuple[Plates, Tensor]]) -> Tensor:
    """The sum of all terms, each summed over all dimensions but those of ``plates``.

    A dimension that belongs to no plate is no statement of independence, so it is summed as well.
    """
    frames: Any = MultiFrameTensor
    total: Tensor = frames(*((of, _without_others(of, term)) for of, term in terms)).sum_to(plates)
    return total


def _without_others(plates: Plates, term: Tensor) -> Tensor:
    """``term``, summed over the dimensions that belong to none of its plates."""
    own = {frame.dim for frame in plates}
    other = [dim for dim in range(-term.ndim, 0) if dim not in own and term.shape[dim] != 1]
    return term.sum(other, keepdim=True) if other else term


def repeated(value: Tensor, size: int, dim: int) -> Tensor:
    """``value``, repeated along ``dim`` until its size there is ``size``."""
    repeat: Any = periodic_repeat
    result: Tensor = repeat(value, size, dim)
    return result.contiguous()
