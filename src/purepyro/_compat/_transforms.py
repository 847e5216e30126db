"""The transforms of ``torch.func`` and traces: which are on, and what is behind their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._private import private, private_or

Words64 = NDArray[np.uint64]

_is_wrapped: Callable[[Tensor], bool] = private(
    "torch._C:_functorch.is_functorch_wrapped_tensor", "telling whether values can be read"
)
_unwrapped: Callable[[Tensor], Tensor] = private(
    "torch._C:_functorch.get_unwrapped", "transforms of torch.func"
)
_has_batch: Callable[[Tensor], bool] = private("torch._C:_functorch.is_batchedtensor", "vmap")
_level: Callable[[Tensor], int] = private("torch._C:_functorch.maybe_get_level", "vmap")
_tracks_gradient: Callable[[Tensor], bool] = private_or(
    "torch._C:_functorch.is_gradtrackingtensor",
    lambda _: False,
    "inside torch.func.grad no value is read, and draws are slower",
)
_top_transform: Callable[[], object | None] = private(
    "torch._C:_functorch.peek_interpreter_stack", "telling whether a transform is on"
)
_transforms: Callable[[], list[Any]] = private(
    "torch._C:_functorch.get_interpreter_stack", "telling whether vmap is on"
)
_no_transforms: Callable[[], AbstractContextManager[object]] = private(
    "torch._functorch.pyfunctorch:temporarily_clear_interpreter_stack",
    "drawing inside transforms of torch.func",
)
_no_dispatch_modes: Callable[[], AbstractContextManager[object]] = private(
    "torch.utils._python_dispatch:_disable_current_modes", "computing outside of a trace"
)
dispatch_modes: Callable[[], int] = private(
    "torch._C:_len_torch_dispatch_stack", "telling whether a trace is on"
)
"""How many dispatch modes are on; a trace is one."""


def is_tracing() -> bool:
    """Whether a graph is being made, so that values cannot be looked at."""
    return dispatch_modes() > 0 or torch.compiler.is_compiling()


def may_be_blind() -> bool:
    """Whether a transform or a trace of ours may be on: a quick look, before ``is_mapped()``.

    It does not ask whether torch.compile is at work, which never sees inside of a run.
    """
    return _top_transform() is not None or dispatch_modes() > 0


def is_transforming() -> bool:
    """Whether a transform of ``torch.func`` or a trace is on."""
    return _top_transform() is not None or dispatch_modes() > 0 or torch.compiler.is_compiling()


def is_mapped() -> bool:
    """Whether a ``vmap`` is on, so that values cannot be looked at."""
    if _top_transform() is None:
        return False
    return any(transform.key().name == "Vmap" for transform in _transforms())


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a transform has put something around this tensor."""
    return _is_wrapped(tensor)


def innermost(tensor: Tensor) -> Tensor:
    """The tensor behind all wrappers of transforms; a batch of vmap is a dimension there."""
    while _is_wrapped(tensor):
        tensor = _unwrapped(tensor)
    return tensor


def batch_levels(tensor: Tensor) -> frozenset[int]:
    """The levels of vmap at which ``tensor`` has a batch of values."""
    if not _is_wrapped(tensor):
        return _NO_LEVELS
    found: list[int] = []
    while _is_wrapped(tensor):
        if _has_batch(tensor):
            found.append(_level(tensor))
        tensor = _unwrapped(tensor)
    return frozenset(found)


_NO_LEVELS: frozenset[int] = frozenset()


def is_batched(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a batch of values, one for each element of a vmap's batch."""
    while _is_wrapped(tensor):
        if _has_batch(tensor):
            return True
        tensor = _unwrapped(tensor)
    return False


def plain(value: Tensor) -> Tensor | None:
    """The plain CPU tensor behind ``value``; None if its values cannot or must not be read."""
    if dispatch_modes() or torch.compiler.is_compiling():
        return None
    while _is_wrapped(value):
        if not _tracks_gradient(value):
            return None
        value = _unwrapped(value)
    return value if type(value) is Tensor and value.device.type == "cpu" else None


def readable(key: Tensor) -> Words64 | None:
    """The words of keys as (keys, 2), or None if they cannot or must not be read.

    They must not under vmap (each element of the batch has its own), while a graph is traced, or on
    another device (reading would wait for it). Under ``torch.func.grad`` they can.
    """
    value = plain(key)
    if value is None:
        return None
    with outside_transforms():
        return value.numpy().reshape(-1, 2).view(np.uint64)


def outside_transforms() -> AbstractContextManager[object]:
    """A block in which plain tensors stay plain although a transform of torch.func is running."""
    return _NOTHING if _top_transform() is None else _no_transforms()


_NOTHING = nullcontext()


@contextmanager
def concretely() -> Iterator[None]:
    """A block outside of all transforms and traces, for facts that hold for good."""
    with outside_transforms(), _no_dispatch_modes():
        yield
