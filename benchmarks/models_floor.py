"""The models written by hand: the shapes of the latent sites, and the log joint density."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor

GROUPS = 1_000
HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)
LOG_2 = math.log(2.0)


@attrs.frozen
class HandWritten:
    """A model without a framework.

    Attributes:
        shapes: The shape of each latent site.
        positive: Which sites are positive; they are fitted as logarithms.
        log_joint: From the sites' values and the data.
    """

    shapes: Mapping[str, tuple[int, ...]]
    positive: frozenset[str]
    log_joint: Callable[..., Tensor]


def normal(x: Tensor, loc: Tensor | float, scale: float) -> Tensor:
    """The log density, summed, with a fixed scale."""
    return (-0.5 * ((x - loc) / scale).square() - (math.log(scale) + HALF_LOG_TAU)).sum()


def scaled_normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """The log density, summed, with one scale for all."""
    squares = ((x - loc) / scale).square().sum()
    return -0.5 * squares - x.numel() * (torch.log(scale) + HALF_LOG_TAU)


def half_normal(x: Tensor, scale: float) -> Tensor:
    return normal(x, 0.0, scale) + LOG_2


def log_normal(x: Tensor) -> Tensor:
    return normal(torch.log(x), 0.0, 1.0) - torch.log(x)


def _regression(z: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    prior = normal(z["weight"], 0.0, 1.0) + normal(z["bias"], 0.0, 10.0)
    prior = prior + half_normal(z["noise"], 1.0)
    mean = (x @ z["weight"].mT).squeeze(-1) + z["bias"]
    return prior + scaled_normal(y, mean, z["noise"])


def _network(z: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    prior = torch.stack([normal(value, 0.0, 1.0) for value in z.values()]).sum()
    logits = torch.tanh(x @ z["weight_1"] + z["bias_1"]) @ z["weight_2"] + z["bias_2"]
    return prior - torch.nn.functional.cross_entropy(logits, y, reduction="sum")


def _hierarchy(z: Mapping[str, Tensor], group: Tensor, y: Tensor) -> Tensor:
    prior = normal(z["mean"], 0.0, 5.0) + half_normal(z["spread"], 2.0)
    prior = prior + half_normal(z["noise"], 1.0)
    prior = prior + scaled_normal(z["means"], z["mean"], z["spread"])
    return prior + scaled_normal(y, z["means"][group], z["noise"])


def _process(z: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    prior = log_normal(z["length"]) + log_normal(z["height"]) + log_normal(z["noise"])
    squares = ((x[:, None] - x) / z["length"]).square()
    covariance = z["height"].square() * torch.exp(-0.5 * squares)
    covariance = covariance + torch.diag_embed((z["noise"].square() + 1e-3).expand(len(x)))
    # The gradient by hand, 0.5 (a a' - inverse) with a = inverse y: a slope times what is zero.
    still = covariance.detach()
    # Without a check of the result, which is an effect that torch 2.13 refuses in a while_loop.
    factor = torch.linalg.cholesky_ex(still).L
    inverse = torch.cholesky_inverse(factor)
    weights = inverse @ y
    slope = 0.5 * (weights[:, None] * weights - inverse)
    log_root = torch.log(factor.diagonal()).sum()
    density = -0.5 * (y * weights).sum() - log_root - len(x) * HALF_LOG_TAU
    return prior + density + (slope * (covariance - still)).sum()


def _sum(z: Mapping[str, Tensor], y: Tensor) -> Tensor:
    return normal(z["numbers"], 0.0, 1.0) + normal(y, z["numbers"].sum(), 1.0)


REGRESSION = HandWritten(
    {"weight": (1, 3), "bias": (), "noise": ()}, frozenset({"noise"}), _regression
)
NETWORK = HandWritten(
    {"weight_1": (64, 50), "bias_1": (50,), "weight_2": (50, 10), "bias_2": (10,)},
    frozenset(),
    _network,
)
HIERARCHY = HandWritten(
    {"mean": (), "spread": (), "noise": (), "means": (GROUPS,)},
    frozenset({"spread", "noise"}),
    _hierarchy,
)
PROCESS = HandWritten(
    {"length": (), "height": (), "noise": ()},
    frozenset({"length", "height", "noise"}),
    _process,
)


def sum_of(sites: int) -> HandWritten:
    """The model with so many sites, which someone who writes by hand keeps in one vector."""
    return HandWritten({"numbers": (sites,)}, frozenset(), _sum)
