"""How many members there are, by their keys and by their settings."""

from __future__ import annotations

from torch import Tensor

from .._core._trees import named_leaves
from .._errors import DtypeError, KeyTypeError, ShapeError, describe
from ..random import Key
from ..random._key import check_key


def checked_keys(keys: Key, members: object) -> Key:
    """The keys, one for each member.

    Raises:
        KeyTypeError: if they are not a stack of keys.
        ShapeError: if there are not as many as there are settings.
    """
    keys = check_key(keys, "keys")
    if keys.ndim != 2:
        what = "which is one key" if keys.ndim == 1 else "which is more than one for each"
        raise KeyTypeError(
            f"Ensemble got the keys {describe(keys)}, {what}, but each member has its own, of "
            "which all its draws come. Write random.split(key, members)."
        )
    count = count_of(members)
    if count is not None and count != len(keys):
        raise ShapeError(
            f"Ensemble got {len(keys)} keys, but settings for {count} members, and each needs "
            f"both. Write random.split(key, {count})."
        )
    if not len(keys):
        raise ShapeError(
            "Ensemble got no key, and an ensemble of no members has no loss and no prediction. "
            "Write random.split(key, members)."
        )
    return keys


def count_of(members: object) -> int | None:
    """For how many members the settings are; ``None`` if there are no settings.

    Raises:
        DtypeError: if a setting is no tensor with a dimension for the members.
        ShapeError: if they are for different numbers of members.
    """
    sizes: dict[str, int] = {}
    for name, leaf in named_leaves(members).items():
        if not isinstance(leaf, Tensor) or not leaf.ndim:
            which = f"members' setting {name!r}" if name else "members' setting"
            raise DtypeError(
                f"The {which} is {describe(leaf)}, which has no dimension for the members. Give "
                "tensors with the members first; what all share belongs into make_svi."
            )
        sizes[name] = len(leaf)
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise ShapeError(
            f"The members' settings are for different numbers of members, or none: {sizes}. The "
            "first dimension of each is the members."
        )
    return next(iter(sizes.values()), None)
