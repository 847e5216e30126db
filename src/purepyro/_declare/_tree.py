"""The tree that Modules form: who is whose child, and under which name.

Children are the values of plain fields, and the items of tuples, lists and dicts in them. Nodes
are the Modules and the ``torch.nn`` modules of the tree. One object that stands at two places is
one node, under its first path in the order of the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from inspect import getattr_static
from typing import Any, ClassVar, Self, TypeVar

import attrs
from torch import nn
from torch.nn.parameter import UninitializedParameter

from .._errors import DeclarationError
from ._reads import OVERRIDES, join

N = TypeVar("N", bound="Node")

CHANGED = "__changed__"


# An attrs class itself, so that type checkers let attrs.evolve take its subclasses.
@attrs.frozen(slots=False, eq=False, repr=False)
class Node:
    """The base of all Modules: a frozen attrs class whose fields may hold other nodes."""

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


def evolved(node: Node, changes: Mapping[str, object], *, as_given: bool = False) -> Node:
    """A copy of a Module with other values in some fields, checked as its ``__init__`` does.

    Not ``attrs.evolve``: that converts all values anew, also those that stay, and takes no field
    that is not an argument of ``__init__``.

    Args:
        node: The Module.
        changes: New values, by name of the field.
        as_given: Whether they are taken as they are, without converters and validators.
    """
    cls = type(node)
    fields = attrs.fields(cls)
    if "__attrs_init__" in vars(plain_class(cls)):  # an __init__ of its own
        given = [field for field in fields if field.name in changes]
        evolve: Callable[..., Any] = attrs.evolve
        own: Node = evolve(node, **{f.alias: changes[f.name] for f in given if f.init})
        after = {f.name: changes[f.name] for f in given if as_given or not f.init}
        own.__dict__.update(after)
        return own
    copy = copy_of(node)
    state = copy.__dict__
    for name in [
        name for name in state if isinstance(getattr_static(cls, name, None), cached_property)
    ]:
        del state[name]
    for field in fields:
        if field.name in changes:
            value = changes[field.name]
            state[field.name] = value if as_given else _converted(value, copy, field)
        elif not field.init and _depends_on_self(field.default):
            default: Any = field.default
            state[field.name] = _converted(default.factory(copy), copy, field)
    if not as_given:
        attrs.validate(copy)
    finish: Callable[[], None] | None = getattr(copy, "__attrs_post_init__", None)
    if finish is not None:
        finish()
        # What it computes anew is not what was asked for.
        state.update({f.name: changes[f.name] for f in fields if not f.init and f.name in changes})
    return copy


def _depends_on_self(default: object) -> bool:
    takes_self: bool = getattr(default, "takes_self", False)
    return takes_self


def _converted(value: object, node: Node, field: attrs.Attribute[Any]) -> object:
    converter: Any = field.converter
    if not isinstance(converter, attrs.Converter):
        return value if converter is None else converter(value)
    given: Any = converter
    extra = [node] * given.takes_self + [field] * given.takes_field
    return given.converter(value, *extra)


def nets_of(node: Node) -> Iterator[tuple[str, nn.Module]]:
    """The ``torch.nn`` modules in the fields of a Module, by their dotted paths from there."""
    for _, part, value in parts_of(node):
        yield from _nets(value, part)


def _nets(value: object, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield path, value
    elif not isinstance(value, Node):
        for name, child in children(value):
            yield from _nets(child, join(path, name))


class Changed:
    """The base of the classes that ``with_overrides`` makes: a Module's own, with declarations.

    They stand in the class, since that is what ``attrs.evolve`` and copies take from an instance.
    """

    __changed__: ClassVar[tuple[type[Node], Mapping[str, object], Callable[[Node], None]]]

    def __init_subclass__(cls) -> None:
        """Nothing: it is no new class to the hooks of the user's classes."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        node = object.__new__(cls)
        node.__dict__[OVERRIDES] = cls.__changed__[1]
        return node

    def __init__(self, *args: object, **kwargs: object) -> None:
        initialize: Callable[..., None] = super().__init__
        initialize(*args, **kwargs)
        assert isinstance(self, Node)
        self.__changed__[2](self)

    def __reduce__(self) -> tuple[Callable[..., Node], tuple[object, ...]]:
        base, _, check = self.__changed__
        return _restored, (base, dict(self.__dict__), check)


def with_overrides(node: N, overrides: Mapping[str, object], check: Callable[[Node], None]) -> N:
    """``node`` itself, with declarations in place of those of its class and its networks.

    Args:
        node: A Module that nobody else has yet.
        overrides: The declarations, by name of the field or path of the network's parameter.
        check: Refuses a later copy, with other field values, that they do not fit.
    """
    base = plain_class(type(node))
    names = {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}
    space = {**names, CHANGED: (base, dict(overrides), check)}
    node.__dict__[OVERRIDES] = dict(overrides)
    object.__setattr__(node, "__class__", type(base.__name__, (Changed, base), space))
    return node


def plain_class(cls: type[N]) -> type[N]:
    """The class that a Module was written as."""
    changed: tuple[type[N], object, object] | None = getattr(cls, CHANGED, None)
    return cls if changed is None else changed[0]


def _restored(base: type[Node], state: dict[str, Any], check: Callable[[Node], None]) -> Node:
    node = object.__new__(base)
    node.__dict__.update(state)
    return with_overrides(node, state[OVERRIDES], check)


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
