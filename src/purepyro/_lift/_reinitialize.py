"""New starting values for a network, by its layers' own rules and from a key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch.autograd import Function

from .._compat._functorch import outside_transforms
from .._compat._pyro import drawn_key, innermost, is_tracing, is_transforming
from .._declare._reads import join
from .._declare._tree import Node
from .._errors import DeclarationError
from .._networks._functional_copy import skeleton, swap
from ..random import Key, name_key
from ..random._mode import KeyedRandom

# Where a copy of a Module keeps the values for the run it is made for.
_FRESH = "_purepyro_fresh"


@attrs.frozen
class Fresh:
    """The initial value of a network's parameter, for ``PyroParam``: drawn anew in each run.

    One reset of the whole network serves all its parameters, since a layer's rule may reach into
    the layers below it, as those of attention do.
    """

    field: str
    name: str

    def __call__(self, owner: Node) -> Tensor:
        """The value on ``owner``, the copy of a Module that a run computes with."""
        values: dict[str, Tensor] | None = owner.__dict__.get(_FRESH)
        if values is None:
            # The path of the Module is in the key already: it is part of the site's name.
            key = Key(drawn_key("<reset_parameters>"))
            values = owner.__dict__[_FRESH] = reset(getattr(owner, self.field), key)
        if self.name not in values:
            raise DeclarationError(_untouched_message(getattr(owner, self.field), self.name))
        return values[self.name]


def reset(net: nn.Module, key: Key) -> dict[str, Tensor]:
    """The parameters that the rules of ``net`` and of its layers set, with their new values.

    Each layer draws from the key of its path. Layers below come before those that hold them, as
    when a network is built, so the rule of the whole has the last word.
    """
    try:
        values = _values(net, key)
    except (RuntimeError, UserWarning):
        if is_tracing() or not is_transforming():
            raise
        values = _one_by_one(key, net)  # a rule that vmap cannot follow: it looks at its numbers
    names = [name for name, _ in net.named_parameters()]
    found = zip(names, values, strict=True)
    return {name: value for name, value in found if _is_filled(value)}


def _values(net: nn.Module, key: Key) -> tuple[Tensor, ...]:
    """The parameters in their order, each filled by a rule, or else with NaNs in it."""
    copy = skeleton(net)
    # In-place rules need tensors with a lane for each key that vmap is at work on.
    lanes = key[..., 0] * 0
    start = {id(own): _lanes(torch.full_like(own, math.nan), lanes) for own in net.parameters()}
    start |= {id(own): _lanes(own.detach().clone(), lanes) for own in net.buffers()}
    swap(copy, start)
    for path, layer in _upwards(copy):
        rule = _rule(layer)
        if rule is not None:
            with KeyedRandom(name_key(key, path)), torch.no_grad():
                rule()
    return tuple(_parameters(net, copy))


class _OneByOne(Function):
    """The values for each key of a vmap in turn."""

    @staticmethod
    def forward(key: Tensor, net: nn.Module) -> tuple[Tensor, ...]:
        return _values(net, Key(key))

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        pass

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int, None], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        key, net = args
        found = [_one_by_one(one, net) for one in key.movedim(in_dims[0], 0)]
        stacked = tuple(torch.stack(values) for values in zip(*found, strict=True))
        return stacked, (0,) * len(stacked)


def _one_by_one(key: Tensor, net: nn.Module) -> tuple[Tensor, ...]:
    # torch leaves `Function.apply` without a type.
    apply = cast("Callable[[Tensor, nn.Module], tuple[Tensor, ...]]", _OneByOne.apply)
    return apply(key, net)


def _lanes(tensor: Tensor, lanes: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.bool else tensor + lanes.to(tensor)


def _is_filled(value: Tensor) -> bool:
    if is_tracing():  # numbers cannot be looked at
        return True
    with outside_transforms():
        return not bool(innermost(value).isnan().any())


def _upwards(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All layers, each after those it holds; one that stands at two places at the first."""
    seen: set[int] = set()

    def walk(layer: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        for name, child in layer.named_children():
            yield from walk(child, join(path, name))
        yield path, layer

    return walk(net, "")


def _rule(layer: nn.Module) -> Callable[[], object] | None:
    for name in ("reset_parameters", "_reset_parameters"):
        rule: Callable[[], object] | None = getattr(layer, name, None)
        if callable(rule):
            return rule
    return None


def _parameters(net: nn.Module, copy: nn.Module) -> Iterator[Tensor]:
    """The parameters of ``net`` in their order, as they are in its copy."""
    for name, _ in net.named_parameters():
        inner, _, last = name.rpartition(".")
        value = copy.get_submodule(inner)._parameters[last]
        if value is not None:
            yield value


def layer_text(path: str, layer: nn.Module) -> str:
    """A layer as messages name it."""
    kind = type(layer).__name__
    return f"The layer {path!r} ({kind})" if path else f"The network ({kind})"


def _untouched_message(net: nn.Module, name: str) -> str:
    inner, _, last = name.rpartition(".")
    layer = net.get_submodule(inner)
    return (
        f"{layer_text(inner, layer)} has the parameter {last!r}, which no reset_parameters() "
        "sets, neither its own nor that of a layer around it, so reinitialize=True has no rule to "
        "draw it by. Give the layer a method reset_parameters(self) that fills it in place, hold "
        f"it by frozen=[{name!r}], or give it a prior: prior={{{name!r}: ...}}."
    )
