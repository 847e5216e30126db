"""Inputs stay as they are: a run that changed one in place is refused."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ._boundary import tensors_in
from ._errors import MutationError, describe


class Inputs:
    """The tensors given to a run, with their versions before it."""

    def __init__(
        self, params: Mapping[str, Tensor], args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> None:
        self._groups = [(f"params[{name!r}]", [param]) for name, param in params.items()]
        self._groups += [(f"argument {i}", list(tensors_in(arg))) for i, arg in enumerate(args)]
        self._groups += [(f"argument {k!r}", list(tensors_in(arg))) for k, arg in kwargs.items()]
        self._versions = self._now()

    def _now(self) -> list[int]:
        # Tensors made in inference mode keep no version.
        return [
            t._version
            for _, tensors in self._groups
            for t in tensors
            if isinstance(t, Tensor) and not t.is_inference()
        ]

    def require_unchanged(self) -> None:
        """Refuse a run that changed its inputs.

        Raises:
            MutationError: naming the first input that was changed.
        """
        now = self._now()
        if now == self._versions:
            return
        names = [
            (name, t)
            for name, tensors in self._groups
            for t in tensors
            if isinstance(t, Tensor) and not t.is_inference()
        ]
        index = next(
            i for i, (old, new) in enumerate(zip(self._versions, now, strict=True)) if old != new
        )
        name, tensor = names[index]
        raise MutationError(
            f"The model changed {name} ({describe(tensor)}) in place. A run is a pure function of "
            "its inputs; the next one would start from other numbers. Write the operation without "
            "the trailing underscore (x = x + 1 in place of x.add_(1)), or work on x.clone()."
        )
