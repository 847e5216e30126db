"""The error tree, and the wording that messages share.

Every error is a ``PurepyroError`` and also the built-in that fits, so that both
``except PurepyroError`` and ``except ValueError`` work. Messages have three beats: what is wrong
and the value seen; why that cannot work; what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import attrs
from torch import Tensor


class PurepyroError(Exception):
    """The root of all errors raised by purepyro."""


class DeclarationError(PurepyroError, TypeError):
    """A class or an instance of a Module is declared wrongly."""


class FrozenError(PurepyroError, attrs.exceptions.FrozenInstanceError):
    """An attribute of a Module was assigned or deleted."""

    def __init__(self, message: str) -> None:
        # attrs' own takes no message, and has one in its class.
        AttributeError.__init__(self, message)
        self.msg = message


class OutsideRunError(PurepyroError, RuntimeError):
    """A declared field was read while no run was going on."""


class CycleError(PurepyroError, RuntimeError):
    """Declared fields need each other in a circle."""


class MissingNameError(PurepyroError, LookupError):
    """A mapping lacks a name that the run needs."""


class UnknownNameError(PurepyroError, LookupError):
    """A mapping has a name, or a path leads to a place, that does not exist."""


class ShapeError(PurepyroError, ValueError):
    """A tensor has another shape than the one declared."""


class DtypeError(PurepyroError, TypeError):
    """A tensor has another dtype than the one declared, or is no tensor."""


class SupportError(PurepyroError, ValueError):
    """A value is not finite, or lies outside the support or constraint of its site."""


class DuplicateSiteError(PurepyroError, ValueError):
    """Two sites of one run have the same name."""


class MutationError(PurepyroError, RuntimeError):
    """A model changed one of its inputs, or state that it may not change, in place."""


class TraceError(PurepyroError, RuntimeError):
    """A function cannot be traced into a graph."""


class VmapError(PurepyroError, RuntimeError):
    """A run cannot be one of many under ``vmap``; ``owner`` is whose vmap it is, if it is ours."""

    owner: str | None = None


class GradientError(PurepyroError, RuntimeError):
    """A gradient was wanted through a compiled function."""


class OutOfRangeError(PurepyroError, IndexError, RuntimeError):
    """An index in compiled code names no element; torch has either of the two for it."""


class SpecializationError(PurepyroError, RuntimeError):
    """A compiled function was called with too many kinds of arguments."""


class KeyTypeError(PurepyroError, TypeError):
    """Something that is not a random key was given as one."""


class KeyReuseError(PurepyroError, RuntimeError):
    """A key was consumed twice inside ``random.forbid_reuse()``."""


class UnsupportedDistributionError(PurepyroError, NotImplementedError):
    """A distribution cannot be drawn from a key."""


class UnsupportedLayerError(PurepyroError, NotImplementedError):
    """A layer of a ``torch.nn`` module cannot run as it is asked to."""


class UnsupportedVersionError(PurepyroError, ImportError):
    """The installed torch or Pyro lacks something that purepyro needs for this."""


class RankError(PurepyroError, RuntimeError):
    """A process of a distributed run is gone, or does something else than the others."""


def describe(value: object) -> str:
    """A short text for a value: tensors as ``float32[3, 2]``, all else by ``repr``.

    >>> import torch
    >>> describe(torch.zeros(3, 2)), describe(torch.tensor(1.0)), describe("a")
    ('float32[3, 2]', 'float32[]', "'a'")
    """
    if isinstance(value, Tensor):
        try:
            shape = str(list(value.shape))
        except RuntimeError:  # the parts of a nested tensor have each its own
            shape = "[nested]"
        return f"{str(value.dtype).removeprefix('torch.')}{shape}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def near(name: str, known: Iterable[str]) -> str:
    """A hint with the names closest to ``name``, or with all of them if they are few.

    >>> near("linaer.weight", ["linear.weight", "sigma"])
    "Did you mean 'linear.weight'?"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    if not names:
        return "There are none to choose from."
    shown = ", ".join(map(repr, names[:8]))
    return f"The names are {shown}{', ...' if len(names) > 8 else ''}."
