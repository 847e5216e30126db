"""``replace``: a changed copy of a model, by dotted path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs
from torch import nn

from .._errors import DeclarationError, UnknownNameError, describe, near
from ._fields import Field
from ._module import Module
from ._parameter_fields import check_overrides, fitted, network_parameters
from ._reads import OVERRIDES, join
from ._tree import (
    Node,
    children,
    evolved,
    fields_of,
    map_children,
    nodes,
    parameters_of,
    parts_of,
    plain_class,
    with_overrides,
)

M = TypeVar("M", bound=Module)


def replace(model: M, changes: Mapping[str, object], /) -> M:
    """A copy of ``model`` with other declarations or other parts; the model stays as it is.

    Args:
        model: A Module.
        changes: By dotted path, what stands there in the copy. At a declared field, or at a
            parameter of a ``torch.nn`` module: a ``PyroParam`` or ``PyroSample``, so that random
            becomes learnable and back. At a plain field, or an item of a tuple, list or dict in
            one: any value of its type, such as another submodule.

    Returns:
        The copy. Parts that did not change are shared with ``model``. A submodule that stands at
        several paths is changed at all of them.

    Raises:
        UnknownNameError: if a path leads nowhere.
        DeclarationError: if something stands there that cannot; if one path is inside another.
        ShapeError: if a declaration has another shape than the network's parameter whose place it
            takes. One number is expanded to the parameter's shape, as ``lift`` does.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroParam, PyroSample, init, random, replace
        >>> class Line(Module):
        ...     slope = PyroSample(dist.Normal(0.0, 1.0))
        ...
        ...     def forward(self, x):
        ...         return self.slope * x
        >>> learnable = replace(Line(), {"slope": PyroParam(torch.tensor(1.0))})
        >>> init(Line(), random.key(0)), init(learnable, random.key(0))
        ({}, {'slope': tensor(1.)})
    """
    _refuse_overlaps(changes)
    edits: dict[int, _Edit] = {}
    for path, new in changes.items():
        _Resolver(model, path, new, edits).at(model, path.split("."))
    copy = _Rebuilder(edits).visit(model, "")
    assert isinstance(copy, plain_class(type(model)))
    return copy


@attrs.define
class _Edit:
    """The changes of one Module: to its plain fields, and to declarations."""

    fields: dict[str, object] = attrs.field(factory=dict)
    overrides: dict[str, Field] = attrs.field(factory=dict)


@attrs.frozen
class _Resolver:
    """Finds the Module that one path ends in, and notes the change there."""

    root: Node
    path: str
    new: object
    edits: dict[int, _Edit]

    def at(self, node: Node, parts: list[str]) -> None:
        """Follow ``parts`` from ``node`` on."""
        edit = self.edits.setdefault(id(node), _Edit())
        head, rest = parts[0], parts[1:]
        if isinstance(node, Module) and head in type(node).__declarations__ and not rest:
            edit.overrides[head] = self._declaration()
        elif ".".join(parts) in _inline_parameters(node):
            self._network(_inline_parameters(node)[".".join(parts)])
        elif head not in attrs.fields_dict(type(node)):
            raise self._unknown()
        elif not rest:
            edit.fields[head] = self._value(getattr(node, head))
        else:
            value = edit.fields.get(head, getattr(node, head))
            self._inside(node, edit, value, parts, depth=1)

    def _inside(self, node: Node, edit: _Edit, value: object, parts: list[str], depth: int) -> None:
        """Follow ``parts[depth:]`` into the value of a field."""
        if isinstance(value, Node):
            self.at(value, parts[depth:])
        elif isinstance(value, nn.Module):
            own = dict(parameters_of(value))
            if ".".join(parts[depth:]) not in own:
                raise self._unknown()
            self._network(own[".".join(parts[depth:])])
        else:
            items = dict(children(value))
            if parts[depth] not in items:
                raise self._unknown()
            item = items[parts[depth]]
            if len(parts) > depth + 1:
                self._inside(node, edit, item, parts, depth + 1)
            else:
                container = edit.fields.get(parts[0], getattr(node, parts[0]))
                new = self._value(item)
                edit.fields[parts[0]] = _with_item(container, parts[1:], new)

    def _network(self, parameter: nn.Parameter) -> None:
        """Note the change of a network's parameter at its first place, where runs look for it."""
        declaration = self._declaration()
        for _, node in nodes(self.root):
            for name, own in network_parameters(node).items() if isinstance(node, Node) else ():
                if own is parameter:
                    edit = self.edits.setdefault(id(node), _Edit())
                    edit.overrides[name] = fitted(self.path, declaration, parameter)
                    return

    def _declaration(self) -> Field:
        if isinstance(self.new, Field):
            return self.new
        raise DeclarationError(
            f"replace was given {describe(self.new)} for {self.path!r}, where a declaration "
            "belongs. Write PyroParam(tensor) to learn it from there, PyroSample(dist.Delta(...)) "
            "to fix it, or put a parameter's value into the params dict."
        )

    def _value(self, old: object) -> object:
        if isinstance(self.new, Field):
            raise DeclarationError(
                f"replace was given a {type(self.new).__name__} for {self.path!r}, which is a "
                f"plain field with {describe(old)} in it. Declarations replace declarations: name "
                f"one inside it, such as {join(self.path, 'weight')!r}, or declare the field in "
                "the class."
            )
        return self.new

    def _unknown(self) -> UnknownNameError:
        return UnknownNameError(
            f"replace was given the path {self.path!r}, which leads nowhere in this "
            f"{type(self.root).__name__}. {near(self.path, _paths(self.root))}"
        )


class _Rebuilder:
    """Copies the parts of a tree that changed, or that hold changed parts; each once."""

    def __init__(self, edits: Mapping[int, _Edit]) -> None:
        self._edits = edits
        self._done: dict[int, object] = {}

    def visit(self, value: object, path: str) -> object:
        """``value`` itself if nothing in it changed, else its changed copy."""
        if isinstance(value, Node):
            if id(value) not in self._done:
                self._done[id(value)] = self._node(value, path)
            return self._done[id(value)]
        copy = map_children(value, path, self.visit)
        same = all(a is b for (_, a), (_, b) in zip(children(value), children(copy), strict=True))
        return value if same else copy

    def _node(self, node: Node, path: str) -> Node:
        edit = self._edits.get(id(node), _Edit())
        changes = dict(edit.fields)
        for name, value in fields_of(node):
            new = self.visit(edit.fields.get(name, value), join(path, name))
            if new is not value:
                changes[name] = new
        if not changes and not edit.overrides:
            return node
        copy = evolved(node, changes)
        overrides = {**node.__dict__.get(OVERRIDES, {}), **edit.overrides}
        if overrides:
            with_overrides(copy, overrides, check_overrides)
            check_overrides(copy)
        return copy


def _with_item(container: object, parts: list[str], new: object) -> object:
    """A container with ``new`` at the end of ``parts``."""

    def visit(item: object, path: str) -> object:
        if path == parts[0]:
            return new if len(parts) == 1 else _with_item(item, parts[1:], new)
        return item

    return map_children(container, "", visit)


def _inline_parameters(node: Node) -> dict[str, nn.Parameter]:
    """The parameters that a Module has under their own names, as the result of ``lift`` does."""
    nets = [value for _, part, value in parts_of(node) if not part]
    return {
        name: parameter
        for net in nets
        if isinstance(net, nn.Module)
        for name, parameter in parameters_of(net)
    }


def _paths(root: Node) -> list[str]:
    """All paths that ``replace`` accepts, but for items of containers."""
    paths: list[str] = []
    for path, node in nodes(root):
        if isinstance(node, nn.Module):
            paths += [join(path, name) for name, _ in parameters_of(node)]
        else:
            names = [name for name, _ in fields_of(node)]
            declared = type(node).__declarations__ if isinstance(node, Module) else {}
            paths += [join(path, name) for name in [*names, *declared]]
    return paths


def _refuse_overlaps(changes: Mapping[str, object]) -> None:
    for inner in changes:
        for outer in changes:
            if inner.startswith(f"{outer}."):
                raise DeclarationError(
                    f"replace was given both {outer!r} and {inner!r}, one inside the other, so "
                    "what to put there is ambiguous. Change the inner one in the new value of the "
                    "outer one, or call replace twice."
                )
