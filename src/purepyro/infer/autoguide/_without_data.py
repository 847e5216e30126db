"""A guide where nobody has the model's data: what the model declares is known without them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from ..._declare._bind import bind, is_bound
from ..._declare._module import Module
from ..._declare._tree import nodes


def takes(model: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a model can be called with these arguments, as far as its signature says."""
    called: Any = getattr(model, "forward", model) if isinstance(model, Module) else model
    try:
        inspect.signature(called).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def declared_alone(model: Callable[..., object]) -> Callable[[], None] | None:
    """A model without arguments, of the fields that ``model`` declares, and of nothing else.

    ``None`` if it is no Module, nor a method of one: what other models draw is known only by
    running them.
    """
    owner: object = model.__self__ if isinstance(model, MethodType) else model
    return MethodType(_read_declared, owner) if isinstance(owner, Module) else None


def is_declared_alone(model: MethodType) -> bool:
    """Whether a model is one that ``declared_alone()`` made."""
    return model.__func__ is _read_declared


def _read_declared(module: Module) -> None:
    """Draw all declared fields; the priors of networks are drawn where a run begins."""
    bound = module if is_bound(module) else bind(module)
    for _, node in nodes(bound):
        if isinstance(node, Module):
            for name in type(node).__declarations__:
                getattr(node, name)
