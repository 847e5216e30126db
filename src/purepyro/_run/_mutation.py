"""Inputs stay as they are: a run that changed one in place is refused."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .._core._trees import tensors_in
from .._errors import MutationError, describe


class Inputs:
    """The tensors given to a run, with their versions before it."""

    def __init__(
        self, params: Mapping[str, Tensor], args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> None:
        groups: list[tuple[str, object]] = [(f"params[{name!r}]", params[name]) for name in params]
        groups += [(f"argument {i}", arg) for i, arg in enumerate(args)]
        groups += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
        self._before = [
            (name, tensor, tensor._version)
            for name, tree in groups
            for tensor in tensors_in(tree)
            if not tensor.is_inference()  # those keep no version
        ]

    def require_unchanged(self) -> None:
        """Refuse a run that changed its inputs.

        Raises:
            MutationError: naming the first input that was changed.
        """
        for name, tensor, version in self._before:
            if tensor._version != version:
                raise MutationError(
                    f"The model changed {name} ({describe(tensor)}) in place. A run is a pure "
                    "function of its inputs; the next one would start from other numbers. Write "
                    "the operation without the trailing underscore (x = x + 1 in place of "
                    "x.add_(1)), or work on x.clone()."
                )
