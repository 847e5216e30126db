"""Networks that compute with a run's values in the place of their own parameters.

A ``torch.nn`` module reaches its parameters in many ways: as attributes, through bound methods,
partials, hooks and containers. What all of these have in common is the tensor object itself. A
:class:`Substitution` knows which tensor stands for which object, and a mode puts it there in the
arguments of every torch function. A parameter of a network that it does not know would be a
constant of which the params say nothing: such a run is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import getattr_static
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.distributions import Distribution, Transform
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from .._compat._pyro import innermost, is_checkpointed
from .._core._trees import tensors_in
from .._errors import DeclarationError, MissingNameError, describe
from ..random import Key
from ..random._mode import KeyedRandom

# Facts about the object itself, which is the same for its value, or which ``pyro.module`` and
# dictionaries of parameters ask for.
_OF_THE_ORIGINAL = frozenset(
    {
        getattr_static(Tensor, "requires_grad").__get__,
        getattr_static(Tensor, "is_leaf").__get__,
        Tensor.__hash__,
    }
)
# What looks at a parameter without computing with it, or makes a constant of it on purpose.
_GETTERS = (
    "shape dtype device ndim layout grad grad_fn data is_nested is_sparse is_quantized is_cuda"
)
_METHODS = (
    "dim size numel stride detach is_floating_point is_complex element_size __len__ __repr__ "
    "data_ptr storage_offset untyped_storage is_contiguous is_inference __deepcopy__ __reduce_ex__ "
    "new_zeros new_ones new_empty new_full new_tensor"
)
_FUNCTIONS = (
    "zeros_like ones_like empty_like full_like rand_like randn_like is_floating_point is_complex "
    "numel _has_compatible_shallow_copy_type"  # the last is asked by nn.Module.to
)
_HARMLESS: frozenset[object] = frozenset(
    [getattr_static(Tensor, name).__get__ for name in _GETTERS.split()]
    + [getattr_static(Tensor, "data").__set__]
    + [getattr(Tensor, name) for name in _METHODS.split()]
    + [getattr(torch, name) for name in _FUNCTIONS.split() if hasattr(torch, name)]
)


_LOOKED_INTO = frozenset({Parameter, tuple, list})


class Substitution:
    """Which tensor stands in the place of which, known by identity.

    Args:
        given: Pytrees of tensors that a run may compute with although they are parameters of a
            network: its params and arguments.
        find: Called once, when a parameter turns up that nobody registered; it may register it.
        strict: Whether a parameter that nobody registered is refused, or a constant.
    """

    def __init__(
        self,
        given: Iterable[object] = (),
        find: Callable[[Substitution], None] | None = None,
        *,
        strict: bool = True,
    ) -> None:
        self._given = given
        self._find = find
        self._strict = strict
        self._values: dict[int, Tensor] = {}
        self._names: dict[int, str] = {}
        self._originals: dict[str, Tensor] = {}
        self._owners: list[Tensor] = []
        self._networks: dict[str, nn.Module] = {}
        self._allowed: set[int] | None = None

    def __bool__(self) -> bool:
        return bool(self._values)

    @property
    def originals(self) -> Mapping[str, Tensor]:
        """The registered parameters by name."""
        return self._originals

    def register(self, name: str, original: Tensor, value: Tensor) -> None:
        """From now on ``value`` stands where the parameter ``original`` of this name is used."""
        self._originals[name] = original
        self._names[id(original)] = name
        self.put(original, value)

    def _is_given(self, parameter: Tensor) -> bool:
        if self._allowed is None:
            self._allowed = {id(tensor) for tree in self._given for tensor in _tensors_of(tree)}
        return id(parameter) in self._allowed

    def require_in_params(self, results: object) -> bool:
        """Refuse results that have a gradient in a parameter of a network that nobody registered.

        Returns:
            Whether there is a gradient at all.

        Raises:
            MissingNameError: naming the parameter.
        """
        if not torch.is_grad_enabled():
            return False
        ends = [innermost(tensor) for tensor in _tensors_of(results)]
        nodes = [end.grad_fn for end in ends if end.grad_fn is not None]
        for parameter in _parameters_behind(nodes):
            if not self._is_given(parameter):
                name = self.name_of(parameter)
                raise MissingNameError(
                    _unregistered_message(parameter, self._place_of(parameter))
                    if name is None
                    else _around_message(name)
                )
        return bool(nodes)

    def know(self, path: str, network: nn.Module) -> None:
        """Look in this network for the name of a parameter that nobody registered."""
        self._networks[path] = network

    def _place_of(self, parameter: Tensor) -> str | None:
        for path, network in self._networks.items():
            for inner, layer in network.named_modules():
                place = _found_in(layer, parameter, ".".join(filter(None, (path, inner))))
                if place:
                    return repr(place)
        return None

    def put(self, original: Tensor, value: Tensor) -> None:
        """From now on ``value`` stands where ``original`` is used."""
        self._values[id(original)] = value
        self._owners.append(original)  # keeps the id from being used again

    def name_of(self, original: Tensor) -> str | None:
        """The name under which a tensor was registered."""
        return self._names.get(id(original))

    def value_of(self, original: Tensor) -> Tensor:
        """What stands for a tensor: itself if it was not registered."""
        return self._values.get(id(original), original)

    def within(self, tree: Any) -> Any:
        """A result of the run, with the values in place of registered tensors that are in it."""
        if isinstance(tree, Tensor):
            return self.value_of(tree)
        kind = type(tree)
        if kind in (tuple, list):
            return kind(self.within(item) for item in tree)
        if kind is dict:
            return {name: self.within(item) for name, item in tree.items()}
        if isinstance(tree, tuple) and hasattr(kind, "_make"):
            return kind._make(self.within(item) for item in tree)
        return tree

    def is_held_by(self, fn: object) -> bool:
        """Whether a distribution computes with parameters of networks when it is scored.

        Those of torch and Pyro compute with the tensors that are their attributes, and with their
        transforms; of others nothing is known.
        """
        if not self._values:
            return False
        if not type(fn).__module__.startswith(("torch.distributions", "pyro.distributions")):
            return True
        parts = list(vars(fn).values())
        for part in parts:
            if isinstance(part, (list, tuple)):
                parts.extend(part)
            elif id(part) in self._values or isinstance(part, nn.Module):
                return True
            elif isinstance(part, Distribution):
                if self.is_held_by(part):
                    return True
            elif isinstance(part, Transform) and not _is_plain(part):
                return True
        return False

    def arguments(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a torch function, with the values in place of registered tensors."""
        if func in _OF_THE_ORIGINAL:
            return args, kwargs
        values = self._values
        for arg in args:  # few need a look, and this is done for every operation
            if id(arg) in values or type(arg) in _LOOKED_INTO:
                args = [self._value(func, arg) for arg in args]
                break
        if kwargs:
            kwargs = {name: self._value(func, arg) for name, arg in kwargs.items()}
        return args, kwargs

    def _value(self, func: Callable[..., Any], arg: Any) -> Any:
        value = self._values.get(id(arg))
        if value is not None:
            if self._strict and is_checkpointed():
                raise DeclarationError(_checkpoint_message(self._names.get(id(arg))))
            return value
        kind = type(arg)
        if kind is Parameter and self._strict:
            return self._unregistered(func, arg)
        if kind is tuple or kind is list:
            return kind([self._value(func, item) for item in arg])
        return arg

    def _unregistered(self, func: Callable[..., Any], parameter: Parameter) -> Tensor:
        """What stands for a parameter that nobody registered yet, or an error."""
        if not parameter.requires_grad or not torch.is_grad_enabled() or func in _HARMLESS:
            return parameter  # a constant, as its owner says
        if getattr(func, "__module__", None) == "torch.nn.init":
            return parameter  # it is being made
        if self._is_given(parameter):
            return parameter
        if self._find is not None:
            find, self._find = self._find, None
            find(self)
            if id(parameter) in self._values:
                return self._values[id(parameter)]
        raise MissingNameError(_unregistered_message(parameter, self._place_of(parameter)))


def _parameters_behind(nodes: list[Node]) -> Iterator[Parameter]:
    """The parameters of networks that a gradient from these nodes would flow to."""
    pending = list(nodes)
    seen = set(pending)
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, Parameter):
            yield variable
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                pending.append(below)


def _is_plain(transform: Transform) -> bool:
    """Whether a transform is one of torch's, without parts that could be networks."""
    if not type(transform).__module__.startswith("torch.distributions"):
        return False
    return not any(
        isinstance(part, (nn.Module, list, tuple, Transform))
        for name, part in vars(transform).items()
        if not name.startswith("_")
    )


def _tensors_of(tree: object) -> Iterator[Tensor]:
    for leaf in _leaves(tree):
        if isinstance(leaf, nn.Module):
            yield from leaf.parameters()
        elif isinstance(leaf, Tensor):
            yield leaf


def _leaves(tree: object) -> Iterator[object]:
    if isinstance(tree, (Tensor, nn.Module)):
        yield tree
    elif tree is None:
        return
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _leaves(item)
    elif isinstance(tree, (dict, Mapping)):
        for item in tree.values():
            yield from _leaves(item)
    else:
        yield from tensors_in(tree)


def _unregistered_message(parameter: Tensor, place: str | None) -> str:
    where = (
        f"{place} is"
        if place
        else "It lies in a closure, a global or a plain container, or an autograd.Function or "
        "compiled code was given it; or it is"
    )
    return (
        f"The run computed with a torch.nn.Parameter ({describe(parameter)}) that is not among its "
        f"params: its value would be baked in, and its gradient lost. {where} part of no network "
        "that the run knows of. Make it an attribute of its layer (in place of a list, "
        "nn.ParameterList or nn.ModuleList), register its network (a field of a Module, lift(net), "
        "or pyro.module(name, net)), or say that it is a constant by "
        "parameter.requires_grad_(False)."
    )


def _checkpoint_message(name: str | None) -> str:
    what = f"the network of {name!r}" if name else "a network that the model registers"
    return (
        f"Activation checkpointing (torch.utils.checkpoint) runs {what} again in the backward "
        "pass, when the run is over and the network computes with its own parameters, so gradients "
        "would be wrong. Hold the network as a field of a Module, or by lift(net), where it has "
        "the run's values for good."
    )


def _around_message(name: str) -> str:
    return (
        f"The run computed with the network's own {name!r} in the place of the params' value, so "
        "that value's gradient is zero. This is what an autograd.Function or compiled code does "
        "that is given the parameter itself. Hold the network as a field of a Module, or by "
        "lift(net), which gives it the value; or pass on weight.view_as(weight)."
    )


def _found_in(value: object, parameter: Tensor, path: str, depth: int = 4) -> str | None:
    """The path of a parameter inside of plain containers and layers, if it lies there."""
    if value is parameter:
        return path
    if not depth:
        return None
    parts: Iterable[tuple[str, object]] = ()
    if isinstance(value, Mapping):
        parts = ((f"{path}[{name!r}]", part) for name, part in value.items())
    elif isinstance(value, (list, tuple, set)):
        parts = ((f"{path}[{i}]", part) for i, part in enumerate(value))
    elif isinstance(value, nn.Module):
        own = {**value._parameters, **value._modules}
        own |= {n: v for n, v in vars(value).items() if not n.startswith("_")}
        parts = ((f"{path}.{name}" if path else name, part) for name, part in own.items())
    found = (_found_in(part, parameter, where, depth - 1) for where, part in parts)
    return next((where for where in found if where), None)


class SubstitutionMode(TorchFunctionMode):
    """A block in which torch functions compute with the values of a :class:`Substitution`."""

    def __init__(self, substitution: Substitution) -> None:
        super().__init__()
        self._substitution = substitution

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        args, named = self._substitution.arguments(func, args, kwargs or {})
        return func(*args, **named)


class RunMode(KeyedRandom):
    """The same, in which torch's random functions draw from a key as well: one mode for both."""

    @property
    def is_on(self) -> bool:
        """Whether its block is under way."""
        return bool(self._outer)

    def shut(self) -> None:
        """Be over, also if a block of it was cut short."""
        self._outer.clear()

    def __init__(self, key: Key, substitution: Substitution) -> None:
        super().__init__(key, rewrite=substitution.arguments)
        self.substitution = substitution
