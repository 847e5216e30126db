"""Parameters of ``torch.nn`` modules inside plain Pyro models.

A Pyro function that calls ``pyro.module(name, net)``, and a ``PyroModule``, compute with the
``torch.nn.Parameter`` objects they hold, not with what ``pyro.param`` answers. While such a model
runs, this mode puts the run's values in the place of those objects in every torch function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import getattr_static
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

# Whether a parameter is learnable is a fact about itself, which pyro.module asks for.
_REQUIRES_GRAD: Any = getattr_static(Tensor, "requires_grad")
_OF_THE_ORIGINAL = frozenset({_REQUIRES_GRAD.__get__})


class Substitute(TorchFunctionMode):
    """Replaces registered tensors, known by identity, in the arguments of torch functions."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, Tensor] = {}
        self._owners: list[Tensor] = []  # keeps the ids from being used again

    def register(self, original: Tensor, value: Tensor) -> None:
        """From now on ``value`` stands where ``original`` is used."""
        if original is not value:
            self._values[id(original)] = value
            self._owners.append(original)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._values and func not in _OF_THE_ORIGINAL:
            args = tuple(self._swapped(arg) for arg in args)
            kwargs = {name: self._swapped(arg) for name, arg in kwargs.items()}
        return func(*args, **kwargs)

    def _swapped(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self._values.get(id(arg), arg)
        if type(arg) in (tuple, list):
            return type(arg)(self._swapped(item) for item in arg)
        return arg
