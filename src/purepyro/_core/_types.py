"""The type aliases that signatures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]
"""Unconstrained values of all learnable parameters, by dotted path."""

Values: TypeAlias = Mapping[str, Tensor]
"""Values by the name of their site or parameter."""

State: TypeAlias = dict[str, Tensor]
"""Buffers of ``torch.nn`` modules, such as BatchNorm statistics, by dotted path."""

Prior: TypeAlias = TorchDistributionMixin | Tensor
"""What a prior may return: a distribution of Pyro, or a Tensor for a deterministic site."""
