"""``Module``: frozen attrs classes whose parameters and random variables are declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import FunctionType
from typing import (
    Any,
    ClassVar,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    dataclass_transform,
    get_origin,
)

import attrs
from pyro.nn import PyroModule
from torch import Tensor, nn

from .._compat._pyro import is_handled
from .._core._pickling import Portable, arrived
from .._errors import DeclarationError, FrozenError, describe
from .._networks._active import ACTIVE
from .._networks._substitution import Substitution, SubstitutionMode
from ._bind import bind, is_bound
from ._fields import Field, PyroParam, static
from ._tree import Node, children, map_children

_PACKAGE = f"{__name__.partition('.')[0]}."

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
M = TypeVar("M", bound=Node)


class HasForward(Protocol[P, R_co]):
    """Anything with a ``forward``; carries its signature to ``__call__`` and beyond."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The computation."""
        ...


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field, static))
class Module(Node):
    """The base class of models: declares parameters and random variables, and holds none.

    Each subclass becomes a frozen attrs class. Annotated names are plain fields: settings,
    tensors, submodules, ``torch.nn`` modules, and tuples, lists and dicts of these.
    ``PyroParam`` and ``PyroSample`` declare the rest. ``forward`` computes with all of them.

    Called outside of ``apply``, a Module is an ordinary Pyro model: it emits ``pyro.param`` and
    ``pyro.sample`` statements, so all of ``pyro.infer`` and ``pyro.poutine`` works on it. Instances
    are equal only to themselves, and can be pickled and copied.

    Raises:
        DeclarationError: when a class or an instance is declared wrongly.
        FrozenError: when an attribute is assigned or deleted.

    Source: ``pyro.nn.PyroModule``; the frozen-class design follows Equinox.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> from purepyro import Module, PyroSample, apply, random
        >>> class Linear(Module):
        ...     size: int
        ...     bias = PyroSample(dist.Normal(0.0, 1.0))
        ...
        ...     @PyroSample
        ...     def weight(self):
        ...         return dist.Normal(torch.zeros(self.size), 1.0).to_event(1)
        ...
        ...     def forward(self, x):
        ...         return x @ self.weight + self.bias
        >>> model = Linear(size=3)
        >>> model
        Linear(size=3)
        >>> apply(model, {}, random.key(0), torch.ones(5, 3)).shape
        torch.Size([5])
    """

    __declarations__: ClassVar[Mapping[str, Field[Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__declarations__ = _declarations(cls)
        if not cls.__module__.startswith(_PACKAGE):  # automatic guides know what they do
            for name, value in list(vars(cls).items()):
                if isinstance(value, FunctionType) and not name.startswith("_"):
                    setattr(cls, name, _method(value))
        attrs.frozen(slots=False, eq=False, repr=False, field_transformer=_guard_fields)(cls)
        # attrs puts its own pair here; ours say what to write instead.
        del cls.__setattr__, cls.__delattr__

    def __call__(self: HasForward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run ``forward``: inside a run as part of it, outside as an ordinary Pyro model."""
        if not isinstance(self, Module) or is_bound(self):
            return self.forward(*args, **kwargs)
        _require_forward(self)
        return _as_run(self, lambda bound: bound.forward(*args, **kwargs))

    # Never: nothing may be assigned, also to a name that is none (a typo), and checkers say so.
    def __setattr__(self, name: str, value: Never) -> None:
        raise FrozenError(_frozen_message(type(self).__name__, name, "assigned"))

    def __delattr__(self, name: str) -> None:
        raise FrozenError(_frozen_message(type(self).__name__, name, "deleted"))

    def __getstate__(self) -> dict[str, object]:
        # An initialiser of a guide, say, may be a function that another one made.
        return {
            name: Portable(value) if isinstance(value, FunctionType | partial) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update({name: arrived(value) for name, value in state.items()})

    def __repr__(self) -> str:
        return _text_of(self)


def _method(fn: Callable[..., object]) -> Callable[..., object]:
    """A public method which, run by a handler of Pyro, is an ordinary Pyro model as a whole.

    Without it ``pyro.infer.SVI(v.model, v.guide, ...)`` would see the networks of ``v`` as plain
    ones, and learn nothing.
    """

    @wraps(fn)
    def method(self: Node, *args: object, **kwargs: object) -> object:
        if is_bound(self) or not is_handled():
            return fn(self, *args, **kwargs)
        return _as_run(self, lambda bound: fn(bound, *args, **kwargs))

    return method


def _as_run(module: M, run: Callable[[M], R]) -> R:
    """What ``run`` gives for the bound copy of a module, whose networks compute with its values."""
    substitution = Substitution(strict=False)
    bound = bind(module, substitution)
    assert isinstance(bound, type(module))
    if not substitution or ACTIVE.get() is not None:
        return run(bound)
    with SubstitutionMode(substitution):
        return run(bound)


def _require_forward(module: Node) -> None:
    if not callable(getattr(module, "forward", None)):
        raise DeclarationError(
            f"{type(module).__name__} was called, but has no forward, so there is nothing to run. "
            "Define `def forward(self, ...)`, or read its fields from a Module that holds it."
        )


def _declarations(cls: type[Module]) -> dict[str, Field[Any]]:
    """The declarations of a class and its bases, by name; refuses what cannot be meant."""
    declarations: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        own = vars(base).get("__declarations__", {})
        declarations.update(own)
    annotations = vars(cls).get("__annotations__", {})
    for name, value in vars(cls).items():
        if isinstance(value, Field):
            _check_declaration(cls, name, value, annotated=name in annotations)
            declarations[name] = value
        else:
            declarations.pop(name, None)  # a plain attribute overrides an inherited declaration
            _check_attribute(cls, name, value, annotated=name in annotations)
    for name in annotations:
        if name not in vars(cls):
            declarations.pop(name, None)
    return declarations


def _check_declaration(cls: type, name: str, value: Field[Any], *, annotated: bool) -> None:
    where, kind = f"{cls.__name__}.{name}", type(value).__name__
    if annotated:
        raise DeclarationError(
            f"{where} has an annotation and is a {kind}. An annotation makes a plain field, which "
            f"the constructor takes. Write `{name} = {kind}(...)` without annotation; its type is "
            "Tensor anyway."
        )
    if value.name != name:
        raise DeclarationError(
            f"{where} is the same {kind} object as {value.name!r}. A declaration is named by its "
            f"attribute, so it cannot be two. Write {name} = {kind}(...) anew."
        )
    if (value.init if isinstance(value, PyroParam) else getattr(value, "prior", None)) is None:
        raise DeclarationError(
            f"{where} is declared by {kind}() without "
            f"{'an initial value' if isinstance(value, PyroParam) else 'a prior'}. Give it one, or "
            f"use it as a decorator: `@{kind}(...)` above `def {name}(self)`."
        )


def _check_attribute(cls: type, name: str, value: object, *, annotated: bool) -> None:
    where = f"{cls.__name__}.{name}"
    if name.startswith("__") or _is_classvar(vars(cls).get("__annotations__", {}).get(name)):
        return
    if isinstance(value, Tensor) and not annotated:
        raise DeclarationError(
            f"{where} is a Tensor ({describe(value)}) where a declaration belongs. Write "
            f"`{name} = PyroParam(tensor)` to learn it, `{name} = PyroSample(prior)` to draw it, "
            f"or `{name}: Tensor = tensor` for a constant."
        )
    if isinstance(value, (Node, nn.Module)) and not annotated:
        raise DeclarationError(
            f"{where} is a {type(value).__name__} without annotation, so it is no field and takes "
            f"no part in runs. Write `{name}: {type(value).__name__}` and pass it to the "
            "constructor."
        )
    if annotated and _is_mutable(value):
        raise DeclarationError(
            f"{where} has the mutable default {describe(value)}, which all instances would share. "
            f"Write `{name}: ... = attrs.field(factory=...)`, or a tuple."
        )


def _is_classvar(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.removeprefix("typing.").startswith("ClassVar")
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _is_mutable(value: object) -> bool:
    return isinstance(value, nn.Module) or type(value).__hash__ is None


def _guard_fields(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Let every field of a class check its value, and keep containers of its own."""
    return [_guarded(field) for field in fields]


def _guarded(field: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
    if field.metadata.get("static") or field.metadata.get("guarded"):  # set, or inherited
        return field
    own = [field.validator] if field.validator else []
    return field.evolve(
        metadata={**field.metadata, "guarded": True},
        validator=attrs.validators.and_(_check_value, *own),
        converter=attrs.converters.pipe(*([field.converter] if field.converter else []), _owned),
    )


def _owned(value: object) -> object:
    """Containers as new ones, so that a later change of the caller's does not reach us."""
    return map_children(value, "", lambda item, _: _owned(item))


def _check_value(instance: object, field: attrs.Attribute[Any], value: object) -> None:
    where = f"{type(instance).__name__}.{field.name}"
    if isinstance(value, Field):
        raise DeclarationError(
            f"The plain field {where} was given a {type(value).__name__}. Declarations stand in "
            f"the class body: write `{field.name} = {type(value).__name__}(...)` there without "
            "annotation, or swap one by replace(model, {path: declaration})."
        )
    if isinstance(value, nn.Parameter) and value.requires_grad:
        raise DeclarationError(
            f"The plain field {where} was given a torch.nn.Parameter ({describe(value)}), which "
            f"would be a constant there and never learned. Declare `{field.name} = "
            "PyroParam(...)` in the class body, or pass parameter.detach() for a constant."
        )
    if _holds_pyro_module(value):
        raise DeclarationError(
            f"The field {where} was given a PyroModule, alone or inside a {type(value).__name__}. "
            "It keeps its parameters and names to itself. Declare a Module in its place, or run "
            "the PyroModule as the model itself: apply(pyro_module, params, key, ...)."
        )
    _check_names(where, value)


def _holds_pyro_module(value: object) -> bool:
    if isinstance(value, nn.Module):
        return any(isinstance(net, PyroModule) for net in value.modules())
    inside = children(value) if isinstance(value, (tuple, list, dict)) else ()
    return any(_holds_pyro_module(item) for _, item in inside)


def _check_names(where: str, value: object) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, (Node, nn.Module)) and not _is_path_part(name):
                raise DeclarationError(
                    f"The dict in {where} has a submodule under {name!r}. The key becomes a part "
                    "of a dotted path, so it must be a string without dots."
                )
    for name, item in children(value) if isinstance(value, (tuple, list, dict)) else ():
        _check_names(f"{where}.{name}", item)


def _is_path_part(name: object) -> bool:
    return isinstance(name, str) and bool(name) and "." not in name


class _Verbatim(str):
    """A piece of text that is to appear as it is."""

    __slots__ = ()


def _text_of(module: Module) -> str:
    """The text of a module, without recursion: modules may lie deeper than Python's stack."""
    pieces, todo = list[str](), list[object]([module])
    while todo:
        value = todo.pop()
        if isinstance(value, _Verbatim):
            pieces.append(value)
        elif isinstance(value, Tensor):
            pieces.append(describe(value))
        elif (inside := _inside(value)) is None:
            pieces.append(repr(value))
        else:
            opening, entries, closing = inside
            todo.append(_Verbatim(closing))
            for number, (label, entry) in reversed(list(enumerate(entries))):
                todo += [entry, _Verbatim(f"{', ' if number else ''}{label}")]
            todo.append(_Verbatim(opening))
    return "".join(pieces)


def _inside(value: object) -> tuple[str, list[tuple[str, object]], str] | None:
    """How the text of a module or container begins, what is in it by its label, and how it ends."""
    if isinstance(value, Module) and type(value).__repr__ is Module.__repr__:
        fields = [field for field in attrs.fields(type(value)) if field.repr]
        entries = [(f"{field.name}=", getattr(value, field.name)) for field in fields]
        return f"{type(value).__name__}(", entries, ")"
    if type(value) is dict:
        return "{", [(f"{name!r}: ", entry) for name, entry in value.items()], "}"
    if type(value) is list:
        return "[", [("", entry) for entry in value], "]"
    if type(value) is tuple:
        return "(", [("", entry) for entry in value], ",)" if len(value) == 1 else ")"
    return None


def _frozen_message(owner: str, name: str, what: str) -> str:
    return (
        f"{owner}.{name} was {what}, but a Module never changes: runs, copies and compiled code "
        "rely on it. Write replace(model, {path: new}) for a changed copy; parameters change in "
        "the params dict."
    )
