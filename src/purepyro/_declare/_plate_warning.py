"""The warning about a field that became local to a plate without anybody saying so."""

from __future__ import annotations

import inspect
import warnings
from weakref import WeakKeyDictionary

from torch import Tensor

from .._compat._pyro import Plates
from ._tree import Node, plain_class

# The fields that were warned about, by class: once is enough for each.
_WARNED: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def warn_local(path: str, owner: Node, value: Tensor, plates: Plates) -> None:
    """Warn that the field at ``path`` is local to ``plates``, unless its class was warned about."""
    name = path.rpartition(".")[2]
    cls = plain_class(type(owner))
    known = _WARNED.get(cls, set())
    if name in known:
        return
    names = " and ".join(repr(frame.name) for frame in plates)
    # An error, where warnings are errors: then the next read says so again.
    warnings.warn(
        f"The field {path!r} was first read inside the plate {names}, so it is local to it, as in "
        f"Pyro: one draw for each row, of the shape {list(value.shape)} in all. If one draw for "
        "all rows is meant, declare it by PyroSample(prior, local=False), or read it before the "
        "plate; if one a row is meant, by PyroSample(prior, local=True).",
        UserWarning,
        stacklevel=_levels_to_user(),
    )
    _WARNED.setdefault(cls, set()).add(name)


def _levels_to_user() -> int:
    """How many calls above ``warn_local`` the code outside of this package stands."""
    frame, levels = inspect.currentframe(), 0
    package = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, levels = frame.f_back, levels + 1
    return levels
