"""Binding: the copy of a Module tree on which one run computes.

In the copy each Module knows its path and its scope, and each ``torch.nn`` module computes with
the run's values in place of its own parameters. The originals are never touched, so runs cannot
see one another.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import pyro
from torch import Tensor, nn

from .._networks._active import ACTIVE, Nets
from .._networks._buffers import Buffers
from .._networks._functional_copy import skeleton, swap
from .._networks._substitution import Substitution
from ._fields import Field
from ._reads import BINDING, OVERRIDES, Binding, Scope, join
from ._tree import Node, copy_of, map_children, parameters_of, parts_of


class Held(Field[Any]):
    """Declares that a parameter of a network keeps the value it has there: a setting."""

    def __repr__(self) -> str:
        return "Held()"


def is_bound(node: Node) -> bool:
    """Whether ``node`` is a copy that takes part in a run."""
    return BINDING in node.__dict__


def bind(root: Node, substitution: Substitution | None = None) -> Node:
    """The copy of ``root`` and all below it for one run.

    Emits the effects of the ``torch.nn`` parameters in the tree; those of declared fields come
    when they are read.

    Args:
        root: A Module.
        substitution: Takes note of what stands for the networks' own tensors, where no run does.
    """
    binder = _Binder()
    bound = binder.node(root, "")
    active = ACTIVE.get()
    if active is None:
        active = Nets(Substitution() if substitution is None else substitution, None)
    # Last, since the prior of a network's parameter may read any field of the tree.
    binder.fill_nets(active)
    return bound


@attrs.frozen
class _Net:
    """A ``torch.nn`` module of the tree with its copy, its path, and the Module that holds it."""

    net: nn.Module
    copy: nn.Module
    path: str
    owner: Node
    local_path: str


class _Binder:
    """Copies one tree; an object met twice is copied once."""

    def __init__(self) -> None:
        self._scope = Scope()
        self._copies: dict[int, Node] = {}
        self._nets: dict[int, _Net] = {}

    def node(self, node: Node, path: str) -> Node:
        if id(node) in self._copies:
            return self._copies[id(node)]
        copy = self._copies[id(node)] = copy_of(node)
        copy.__dict__[BINDING] = Binding(self._scope, path)
        for name, part, value in parts_of(node):
            copy.__dict__[name] = self._value(value, part, copy, path)
        return copy

    def _value(self, value: object, local_path: str, owner: Node, owner_path: str) -> object:
        if isinstance(value, Node):
            return self.node(value, join(owner_path, local_path))
        if isinstance(value, nn.Module):
            path = join(owner_path, local_path)
            if id(value) not in self._nets:
                self._nets[id(value)] = _Net(value, skeleton(value), path, owner, local_path)
            return self._nets[id(value)].copy
        visit = partial(self._value, owner=owner, owner_path=owner_path)
        return map_children(value, local_path, visit)

    def fill_nets(self, nets: Nets) -> None:
        done: dict[int, Tensor] = {}  # tied parameters, also across networks, are one site
        for net in self._nets.values():
            nets.substitution.know(net.path, net.net)
            for name, parameter in parameters_of(net.net):
                if id(parameter) not in done:
                    value = done[id(parameter)] = self._parameter(net, name, parameter)
                    nets.substitution.register(join(net.path, name), parameter, value)
            swap(net.copy, done)
            if nets.buffers is not None:
                _swap_buffers(net, nets.substitution, nets.buffers)

    def _parameter(self, net: _Net, name: str, parameter: nn.Parameter) -> Tensor:
        path = join(net.path, name)
        declaration = net.owner.__dict__.get(OVERRIDES, {}).get(join(net.local_path, name))
        if isinstance(declaration, Held):
            return parameter.detach()
        if declaration is not None:
            return self._scope.read(path, net.owner, declaration)
        return pyro.param(path, parameter.detach().clone)


def _swap_buffers(net: _Net, substitution: Substitution, buffers: Buffers) -> None:
    pairs = buffers.hand_out(net.path, net.net, net.copy)
    swap(net.copy, {id(own): copy for own, copy in pairs})
    for own, copy in pairs:
        substitution.put(own, copy)
