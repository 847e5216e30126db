"""The arguments of an ensemble's call: which tensors are the members' own, which are shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
from torch import Tensor

from .._core._trees import Frame, leaves_of
from .._errors import ShapeError, describe
from ..infer.svi._nonfinite import Batch

InDims: TypeAlias = int | tuple[int | None, ...] | None
"""Where the members' dimension is: for all arguments, or for each by place; ``None``: shared."""


@attrs.frozen
class Plan:
    """A call's arguments without their tensors.

    Attributes:
        frame: The arguments by position and by name, without their tensors.
        dims: For each tensor 0 if its first dimension is the member, ``None`` if it is shared.
    """

    frame: Frame[tuple[tuple[Any, ...], dict[str, Any]]]
    dims: tuple[int | None, ...]

    def rebuilt(self, tensors: Sequence[Tensor]) -> Batch:
        """The arguments, with tensors in their places."""
        return Batch(*self.frame.filled(tensors))


@attrs.frozen
class Arguments:
    """A call's arguments, taken apart.

    Attributes:
        tensors: Their tensors, those of the members with the members first.
        plan: All the rest.
    """

    tensors: tuple[Tensor, ...]
    plan: Plan

    @property
    def dims(self) -> tuple[int | None, ...]:
        """For each tensor 0 if its first dimension is the member, ``None`` if it is shared."""
        return self.plan.dims

    def rebuilt(self, tensors: Sequence[Tensor]) -> Batch:
        """The arguments, with tensors in their places."""
        return self.plan.rebuilt(tensors)

    def of_members(self, index: Tensor) -> tuple[Tensor, ...]:
        """The tensors of some members, with the shared ones."""
        return tuple(
            tensor if dim is None else tensor.index_select(0, index.to(tensor.device))
            for tensor, dim in zip(self.tensors, self.dims, strict=True)
        )

    def of_member(self, i: int) -> tuple[Tensor, ...]:
        """The tensors of one member, with the shared ones."""
        return tuple(
            tensor if dim is None else tensor[i]
            for tensor, dim in zip(self.tensors, self.dims, strict=True)
        )


def arguments(
    in_dims: InDims, args: tuple[Any, ...], kwargs: Mapping[str, Any], count: int
) -> Arguments:
    """The arguments of a call for ``count`` members.

    Raises:
        ShapeError: if ``in_dims`` do not fit the arguments, or these the number of members.
    """
    if isinstance(in_dims, tuple) and len(in_dims) != len(args):
        raise ShapeError(
            f"Ensemble has in_dims={in_dims} for {len(in_dims)} arguments, but the call has "
            f"{len(args)} by position, so it is open which of them are the members' own. Give one "
            "entry for each; arguments by name are shared."
        )
    of_args = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
    of_kwargs = None if isinstance(in_dims, tuple) else in_dims
    named = [
        (f"Argument {i}", arg, dim) for i, (arg, dim) in enumerate(zip(args, of_args, strict=True))
    ]
    named += [(f"Argument {name!r}", kwargs[name], of_kwargs) for name in sorted(kwargs)]
    kwargs = {name: kwargs[name] for name in sorted(kwargs)}
    tensors, dims = [], []
    for name, argument, dim in named:
        for leaf in leaves_of(argument):
            if isinstance(leaf, Tensor):
                tensors.append(leaf if dim is None else _members_first(name, leaf, dim, count))
                dims.append(None if dim is None else 0)
    return Arguments(tuple(tensors), Plan(Frame.of((args, kwargs)), tuple(dims)))


def _members_first(name: str, tensor: Tensor, dim: int, count: int) -> Tensor:
    if not -tensor.ndim <= dim < tensor.ndim:
        raise ShapeError(
            f"{name} is {describe(tensor)}, which has no dimension {dim}, where in_dims says "
            "that the members are. Give the members' own arguments a dimension for them, and None "
            "in in_dims for those that all share."
        )
    if tensor.shape[dim] != count:
        raise ShapeError(
            f"{name} is {describe(tensor)}, with {tensor.shape[dim]} in dimension {dim}, but "
            f"there are {count} members, so some would have no data or some data no member. Give "
            "each member its own, or None in in_dims for what all share."
        )
    return tensor.movedim(dim, 0)
