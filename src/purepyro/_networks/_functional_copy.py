"""Copies of ``torch.nn`` modules that share everything but the tensors they compute with.

Swapping tensors on a shared module, as ``torch.func.functional_call`` does, is seen by other
threads. A skeleton is a module of its own: same code, same settings, other tensors. Whatever in it
is bound to a layer (methods, partials, hooks, closures, alone or in containers) is bound to the
layer's copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import DeclarationError

# Attributes of every module that are copied by themselves, or bind nothing.
_OWN = frozenset({"_parameters", "_buffers", "_modules"})
_OFTEN_EMPTY = frozenset({dict, OrderedDict, list, tuple, set})
_PLAIN = frozenset({bool, int, float, str, type(None), Tensor, nn.Parameter, torch.Size, type})


def skeleton(net: nn.Module) -> nn.Module:
    """A copy of ``net`` whose tensors can be swapped without ``net`` noticing.

    Raises:
        DeclarationError: if a part of it is TorchScript, whose tensors cannot be swapped.
    """
    refuse_script(net)
    copies: dict[int, nn.Module] = {}
    copy = _copy(net, copies)
    for each in copies.values():
        _rebind(each, copies)
    return copy


def swap(copy: nn.Module, tensors: Mapping[int, Tensor]) -> None:
    """Let a skeleton compute with other tensors.

    Args:
        copy: A skeleton.
        tensors: For the ``id`` of a parameter or buffer that it holds, the tensor in its place.
    """
    for module in copy.modules():
        for kind in ("_parameters", "_buffers"):
            # Not by setattr: nn.Module would refuse plain tensors in place of parameters.
            own: dict[str, Tensor | None] = module.__dict__[kind]
            own.update({n: tensors[id(t)] for n, t in own.items() if id(t) in tensors})
        if isinstance(module, nn.RNNBase):
            # RNNs compute with this list, not with their parameters.
            names = module._flat_weights_names
            module.__dict__["_flat_weights"] = [module._parameters.get(name) for name in names]


def refuse_script(net: nn.Module) -> None:
    """Refuse a network with a part whose tensors nobody can swap.

    Raises:
        DeclarationError: naming it.
    """
    for path, part in net.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.parameters()):
            where = f"The layer {path!r}" if path else "A network"
            raise DeclarationError(
                f"{where} is TorchScript ({type(part).__name__}), which computes with its own "
                "parameters and never sees those of a run, so their gradients would be zero. Use "
                "the torch.nn module that it was made from; purepyro.jit compiles it with "
                "everything around it."
            )


def forget_compiled(net: nn.Module) -> None:
    """Let a network run as it was written: compiled code reads the tensors of the original."""
    for part in net.modules():
        _forget_compiled(part.__dict__)


def _forget_compiled(own: dict[str, Any]) -> None:
    if own.get("_compiled_call_impl") is not None:
        own["_compiled_call_impl"] = None
    inner = own.get("_modules", {}).get("_orig_mod")
    if inner is not None and "dynamo_ctx" in own:  # what torch.compile(net) returns
        own["forward"] = inner


def _copy(net: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    if id(net) in done:
        return done[id(net)]
    copy = done[id(net)] = object.__new__(type(net))
    copy.__dict__.update(net.__dict__)
    copy.__dict__["_parameters"] = dict(net._parameters)
    copy.__dict__["_buffers"] = dict(net._buffers)
    copy.__dict__["_modules"] = {
        name: child if child is None else _copy(child, done) for name, child in net._modules.items()
    }
    return copy


def _rebind(copy: nn.Module, copies: Mapping[int, nn.Module]) -> None:
    """Bind to the copies what an attribute of the copy binds to the originals."""
    own = copy.__dict__
    _forget_compiled(own)
    for name, value in list(own.items()):
        kind = type(value)
        if kind in _PLAIN or (kind in _OFTEN_EMPTY and not value) or name in _OWN:
            continue
        bound = _bound(value, copies, frozenset())
        if bound is not value:
            own[name] = bound


def _bound(value: Any, copies: Mapping[int, nn.Module], above: frozenset[int]) -> Any:
    """``value`` itself, or one like it that is bound to the copies where it was to the originals.

    Args:
        value: Anything that a layer has as an attribute.
        copies: The copy of each layer, by the ``id`` of the original.
        above: The ``id`` of everything that ``value`` lies in, which ends a circle.
    """
    kind = type(value)
    if kind in _PLAIN or id(value) in above:
        return value
    if isinstance(value, nn.Module):
        return copies.get(id(value), value)
    inside = above | {id(value)}

    def visit(part: Any) -> Any:
        return _bound(part, copies, inside)

    if kind is MethodType:
        owner = visit(value.__self__)
        return value if owner is value.__self__ else MethodType(value.__func__, owner)
    if kind is partial:
        parts = visit((value.func, value.args, value.keywords))
        return partial(parts[0], *parts[1], **parts[2]) if _differs(parts, value) else value
    if kind is FunctionType:
        return _bound_function(value, visit)
    if isinstance(value, (tuple, list)):
        items = [visit(item) for item in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        make: Callable[..., Any] = getattr(kind, "_make", kind)
        return make(items)
    if isinstance(value, dict):
        changed = {k: new for k, item in value.items() if (new := visit(item)) is not item}
        if not changed:
            return value
        copy = value.copy()
        copy.update(changed)
        return copy
    return value


def _differs(parts: tuple[Any, ...], value: partial[Any]) -> bool:
    func, args, keywords = parts
    return func is not value.func or args is not value.args or keywords is not value.keywords


def _bound_function(function: FunctionType, visit: Callable[[Any], Any]) -> FunctionType:
    """A function whose closure and defaults are bound to the copies."""
    cells = function.__closure__ or ()
    held = tuple(_content(cell) for cell in cells)
    new, defaults = visit(held), visit(function.__defaults__)
    named = visit(function.__kwdefaults__)
    if new is held and defaults is function.__defaults__ and named is function.__kwdefaults__:
        return function
    pairs = zip(cells, held, new, strict=True)
    closure = tuple(cell if a is b else CellType(b) for cell, a, b in pairs)
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, defaults, closure
    )
    copy.__kwdefaults__ = named
    copy.__dict__.update(function.__dict__)
    return copy


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty still
        return None
