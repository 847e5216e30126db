"""What the evidence shares: a fit with a falling rate, a guide with full covariance, a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import pyro.distributions as dist
import torch
import torchopt
from pyro.distributions import constraints
from torch import Tensor
from torchopt.schedule import linear_schedule

from purepyro import Module, Params, Prior, PyroParam, PyroSample, random
from purepyro.infer import SVI, Trace_ELBO

P = ParamSpec("P")


class FullNormal(Module):
    """The normal guide with full covariance, of one vector-valued site ``coefficient``."""

    dim: int
    dtype: torch.dtype = torch.float32

    @PyroParam
    def loc(self) -> Tensor:
        return torch.zeros(self.dim, dtype=self.dtype)

    @PyroParam(constraint=constraints.lower_cholesky)
    def scale_tril(self) -> Tensor:
        return 0.1 * torch.eye(self.dim, dtype=self.dtype)

    @PyroSample
    def coefficient(self) -> Prior:
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.coefficient


def svi(
    model: Callable[P, object],
    guide: Callable[P, object],
    *,
    steps: int,
    particles: int = 32,
    rate: float = 0.05,
) -> SVI[P]:
    """Adam, whose rate falls in a line to a tenth of ``rate`` over ``steps``."""
    optim = torchopt.adam(linear_schedule(rate, rate / 10, steps, 0))
    return SVI(model, guide, optim, Trace_ELBO(num_particles=particles), progress_bar=False)


def fit(svi: SVI[P], key: random.Key, steps: int, /, *args: P.args, **kwargs: P.kwargs) -> Params:
    """Unconstrained parameters, averaged over the second half of the steps.

    The average is free of most of the gradient's noise (Polyak and Juditsky 1992).
    """
    state = svi.init(key, *args, **kwargs)
    total = {name: torch.zeros_like(value) for name, value in state.params.items()}
    for step in range(steps):
        state, _ = svi.step(state, *args, **kwargs)
        if step >= steps // 2:
            total = {name: value + state.params[name] for name, value in total.items()}
    return {name: value / (steps - steps // 2) for name, value in total.items()}


def bound(
    model: Callable[..., object],
    guide: Callable[..., object],
    params: Params,
    key: random.Key,
    *args: Any,
    draws: int = 10_000,
) -> Tensor:
    """The evidence lower bound, averaged over ``draws`` draws of the guide."""
    loss = Trace_ELBO(num_particles=draws, chunk_size=10_000)
    with torch.no_grad():
        return -loss.loss(model, guide, params, key, *args)


def close(actual: Tensor, expected: Tensor | float, atol: float) -> None:
    """Equal but for ``atol``, with no relative tolerance."""
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)
