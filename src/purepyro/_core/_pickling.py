"""Pickles of functions that were made by functions, as optimisers are: a recipe in their place.

pickle knows a function by its module and name, and so refuses those that another function returns,
such as both functions of ``torchopt.adam(0.1)``. They are made of code, of the values they found
around them, which may be pickled, and of the names of their module: that is their recipe.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from importlib import import_module
from importlib.util import MAGIC_NUMBER
from types import CellType, CodeType, FunctionType
from typing import Any, Generic, TypeVar, cast

import attrs
from torchopt.base import ChainedGradientTransformation, IdentityGradientTransformation

from .._errors import DeclarationError

T = TypeVar("T")


class Portable(Generic[T]):
    """A value on its way into a copy or a pickle; :func:`arrived` takes it out again.

    A copy has the value itself, a pickle the recipes of the functions in it. What has no recipe is
    left to the pickler, since some picklers take more than Python's.

    Args:
        value: A function, or tuples, lists, dicts and optimisers of torchopt with some in them.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __copy__(self) -> Portable[T]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Portable[T]:
        return Portable(deepcopy(self.value, memo))

    def __reduce__(self) -> tuple[object, ...]:
        return _made, (_packed(self.value, {}),)


def arrived(value: Portable[T] | T) -> T:
    """What was on its way, in a copy or from a pickle."""
    return cast("T", value.value if isinstance(value, Portable) else value)


class Carried:
    """A base of attrs classes that go to other processes with the functions in their fields.

    To be made with ``attrs.frozen(getstate_setstate=False)``. What is no field, such as compiled
    graphs, stays behind.
    """

    __slots__ = ()

    def __getstate__(self) -> dict[str, object]:
        fields = attrs.fields(cast("Any", type(self)))
        return {field.name: Portable(getattr(self, field.name)) for field in fields}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, arrived(value))


@attrs.define(eq=False)
class _Function:
    """The recipe of a function: which code, around which values, in which module."""

    code: bytes
    version: bytes
    module: str
    needs: tuple[str, ...]
    name: str
    qualname: str
    defaults: object = None
    kwdefaults: object = None
    # For each variable nothing, if it had no value yet, or its one value.
    cells: list[list[object]] = attrs.field(factory=list)
    attributes: object = None


@attrs.frozen(eq=False)
class _Call:
    """The recipe of a value that a call makes."""

    fn: Callable[..., object]
    args: tuple[object, ...]
    kwargs: dict[str, object] = attrs.field(factory=dict)


def _packed(value: object, known: dict[int, object]) -> object:
    """A value with recipes in place of functions."""

    def each(values: Iterator[object] | tuple[object, ...] | list[object]) -> tuple[object, ...]:
        return tuple(_packed(one, known) for one in values)

    if isinstance(value, FunctionType):
        return _packed_function(value, known)
    if isinstance(value, ChainedGradientTransformation):
        return _Call(ChainedGradientTransformation, each(value.transformations))
    if isinstance(value, IdentityGradientTransformation):
        return _Call(IdentityGradientTransformation, ())
    if type(value) is partial:
        keywords = {name: _packed(one, known) for name, one in value.keywords.items()}
        return _Call(partial, each((value.func, *value.args)), keywords)
    if type(value) is tuple:
        return each(value)
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return _Call(cast("Any", value)._make, (each(tuple(value)),))
    if type(value) is list:
        return list(each(value))
    if type(value) is dict:
        return dict(zip(value, each(list(value.values())), strict=True))
    return value


def _packed_function(fn: FunctionType, known: dict[int, object]) -> object:
    if id(fn) in known:
        return known[id(fn)]
    module: str = fn.__globals__.get("__name__", "")
    if _is_by_name(fn) or not _is_of_a_file(module, fn):
        return fn
    recipe = _Function(
        marshal.dumps(fn.__code__),
        MAGIC_NUMBER,
        module,
        tuple(sorted(_names(fn.__code__) & fn.__globals__.keys())),
        fn.__name__,
        fn.__qualname__,
    )
    known[id(fn)] = recipe  # a function may find itself around it
    recipe.defaults = _packed(fn.__defaults__, known)
    recipe.kwdefaults = _packed(fn.__kwdefaults__, known)
    recipe.cells = [[_packed(one, known) for one in _content(c)] for c in fn.__closure__ or ()]
    recipe.attributes = _packed(fn.__dict__, known)
    return recipe


def _made(value: object, known: dict[int, object] | None = None) -> object:
    """What the recipes are for."""
    known = {} if known is None else known

    def each(values: tuple[object, ...] | list[object]) -> tuple[object, ...]:
        return tuple(_made(one, known) for one in values)

    if isinstance(value, _Function):
        return _made_function(value, known)
    if isinstance(value, _Call):
        keywords = {name: _made(one, known) for name, one in value.kwargs.items()}
        return value.fn(*each(value.args), **keywords)
    if type(value) is tuple:
        return each(value)
    if type(value) is list:
        return list(each(value))
    if type(value) is dict:
        return dict(zip(value, each(list(value.values())), strict=True))
    return value


def _made_function(recipe: _Function, known: dict[int, object]) -> object:
    if id(recipe) in known:
        return known[id(recipe)]
    scope = _scope(recipe)
    code: CodeType = marshal.loads(recipe.code)
    cells = tuple(CellType() for _ in recipe.cells)
    fn = FunctionType(code, scope, recipe.name, closure=cells or None)
    known[id(recipe)] = fn
    fn.__qualname__ = recipe.qualname
    fn.__defaults__ = cast("Any", _made(recipe.defaults, known))
    fn.__kwdefaults__ = cast("Any", _made(recipe.kwdefaults, known))
    fn.__dict__.update(cast("Any", _made(recipe.attributes, known)))
    for cell, content in zip(cells, recipe.cells, strict=True):
        for one in content:
            cell.cell_contents = _made(one, known)
    return fn


def _scope(recipe: _Function) -> dict[str, Any]:
    """The names of the module of a function, once it is sure that the function will do here."""
    what = f"The function {recipe.qualname} of the module {recipe.module!r} was pickled"
    if recipe.version != MAGIC_NUMBER:
        raise DeclarationError(
            f"{what} by another version of Python, whose code does not run here. {_ADVICE}"
        )
    try:
        module = import_module(recipe.module)
    except ImportError as error:
        raise DeclarationError(
            f"{what}, and that cannot be imported here ({error}). {_ADVICE}"
        ) from None
    missing = [name for name in recipe.needs if name not in vars(module)]
    if missing:
        raise DeclarationError(
            f"{what}, and uses {', '.join(missing)}, which that does not have here. What stands "
            f"under `if __name__ == '__main__':` is not there for other processes. {_ADVICE}"
        )
    return vars(module)


_ADVICE = (
    "Use the same versions and files on both sides, or make the object in the process that uses "
    "it, by a function at the top of a module."
)


def _is_by_name(fn: FunctionType) -> bool:
    """Whether pickle finds a function by itself."""
    found: object = sys.modules.get(fn.__module__ or "")
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is fn


def _is_of_a_file(name: str, fn: FunctionType) -> bool:
    """Whether another process can import the module of a function."""
    module = sys.modules.get(name)
    return module is not None and vars(module) is fn.__globals__ and hasattr(module, "__file__")


def _names(code: CodeType) -> set[str]:
    """The names that a function uses, those of attributes among them."""
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)


def _content(cell: CellType) -> list[object]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
