"""The tree that Modules form: who is whose child, and under which name.

Children are the values of plain fields, and the items of tuples, lists and dicts in them. Nodes
are the Modules and the ``torch.nn`` modules of the tree. One object that stands at two places is
one node, under its first path in the order of the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import attrs
from torch import nn
from torch.nn.parameter import UninitializedParameter

from ._errors import DeclarationError
from ._scope import join


class Node:
    """The base of all Modules: a frozen attrs class whose fields may hold other nodes."""

    __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]] = ()

    # Whether the parameters are made by statements in ``forward``, as a guide's are.
    starts_by_running: ClassVar[bool] = False

    # Whether ``forward`` computes with no network and draws by sites alone, as automatic guides do:
    # a mode that redirects torch's functions would only cost time. It is not inherited.
    needs_no_mode: ClassVar[bool] = False


def fields_of(node: Node) -> Iterator[tuple[str, object]]:
    """The non-static plain fields of a Module with their values."""
    return ((name, value) for name, _, value in parts_of(node))


def parts_of(node: Node) -> Iterator[tuple[str, str, object]]:
    """The same, with the part of a path that each stands for: none for an inline field.

    What is in an inline field bears the names it has by itself, as the network of ``lift`` does.
    """
    for field in attrs.fields(type(node)):
        if not field.metadata.get("static"):
            part = "" if field.metadata.get("inline") else field.name
            yield field.name, part, getattr(node, field.name)


def children(value: object) -> Iterator[tuple[str, object]]:
    """The named children of a Module or a container; none for all else."""
    if isinstance(value, Node):
        yield from ((part, item) for _, part, item in parts_of(value))
    elif isinstance(value, (tuple, list)):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((str(name), item) for name, item in value.items())


def nodes(root: object, path: str = "") -> Iterator[tuple[str, Node | nn.Module]]:
    """All nodes from ``root`` down, each once, parents before children, with dotted paths."""
    return _nodes(root, path, set())


def _nodes(value: object, path: str, seen: set[int]) -> Iterator[tuple[str, Node | nn.Module]]:
    if isinstance(value, (Node, nn.Module)):
        if id(value) in seen:
            return
        seen.add(id(value))
        yield path, value
    for name, child in children(value):
        yield from _nodes(child, join(path, name), seen)


def map_children(value: object, path: str, visit: Callable[[object, str], object]) -> object:
    """A container of the same kind, each item replaced by ``visit(item, its path)``.

    Anything but a tuple, list or dict is returned as it is.
    """
    if isinstance(value, tuple):
        items = [visit(item, join(path, str(i))) for i, item in enumerate(value)]
        made: Callable[..., object] = getattr(type(value), "_make", type(value))
        return made(items)
    if isinstance(value, list):
        return [visit(item, join(path, str(i))) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {name: visit(item, join(path, str(name))) for name, item in value.items()}
    return value


def copy_of(node: Node) -> Node:
    """A shallow copy of a Module, made without running its ``__init__``."""
    copy = object.__new__(type(node))
    copy.__dict__.update(node.__dict__)
    return copy


def evolved(node: Node, changes: Mapping[str, object]) -> Node:
    """A copy of a Module with other field values, made by its ``__init__`` with all its checks."""
    evolve: Callable[..., Any] = attrs.evolve
    copy: Node = evolve(node, **changes)
    return copy


def parameters_of(net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The learnable parameters of a ``torch.nn`` module, tied ones once; frozen ones are settings.

    Raises:
        DeclarationError: if a lazy layer does not know its shapes yet.
    """
    for name, parameter in net.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise DeclarationError(
                f"The parameter {name!r} of a {type(net).__name__} has no shape yet, because a "
                "lazy layer learns it from its first input. Call the torch.nn module once on an "
                "example input before it becomes a field."
            )
        if parameter.requires_grad:
            yield name, parameter
