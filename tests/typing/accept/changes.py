"""``replace`` and ``to`` keep the model's type."""

from __future__ import annotations

from typing import assert_type

import attrs
import pyro.distributions as dist
import torch
from torch import Tensor

from purepyro import Description, Module, PyroParam, PyroSample, describe, replace, to


class Leaf(Module):
    size: int
    weight = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class Tree(Module):
    leaves: tuple[Leaf, ...]
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * sum((leaf(x) for leaf in self.leaves), start=torch.zeros(()))


tree = Tree((Leaf(2), Leaf(3)), torch.tensor(1.0))
assert_type(replace(tree, {"leaves.0.weight": PyroParam(torch.tensor(0.0))}), Tree)
assert_type(replace(tree, {"leaves.1": Leaf(4), "scale": torch.tensor(2.0)}), Tree)
assert_type(
    replace(tree, {"leaves.0.weight": PyroSample(lambda self: dist.Delta(torch.ones(self.size)))}),
    Tree,
)
assert_type(attrs.evolve(tree, scale=torch.tensor(2.0)), Tree)
assert_type(attrs.evolve(Leaf(2), size=3), Leaf)
assert_type(attrs.evolve(replace(tree, {}), leaves=(Leaf(2),)).leaves, tuple[Leaf, ...])
assert_type(describe(tree, torch.ones(2)), Description)
assert_type(to(tree, torch.float64), Tree)
assert_type(to(tree, device="cpu"), Tree)
assert_type(to(tree, torch.float64, device=torch.device("cpu")), Tree)
assert_type(replace(to(tree, torch.float64), {}).leaves[0], Leaf)
