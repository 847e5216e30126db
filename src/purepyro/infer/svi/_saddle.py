"""Whether a guide that is a point starts where no gradient would ever move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from pyro.distributions import Delta
from torch import Tensor

from ..._compat._functorch import plain
from ..._core._types import Params
from ..._run._sites import Site
from ...random import Key, fold_in, name_key, normal

_TRIES, _STEPS, _SIZES = 2, 12, (0.3, 0.03)


def is_point(guide_sites: Mapping[str, Site]) -> bool:
    """Whether a guide is a point, without any noise."""
    laws = [site.fn for site in guide_sites.values() if site.kind != "subsample"]
    return bool(laws) and all(isinstance(law, Delta) for law in laws)


def stuck_at(loss: Callable[[Params], Tensor], params: Params, key: Key) -> list[str]:
    """The parameters whose gradients are exactly zero, though they are not at their best.

    A maximum of the density has no gradient either; so it is tried whether a small push, and a few
    steps downhill from there, lead below the loss of the start.

    Args:
        loss: The loss, as a function of the parameters.
        params: Where it starts.
        key: The pushes depend on it.
    """
    start, slopes = _downhill(loss, params)
    if start is None:
        return []
    still = [name for name, slope in slopes.items() if slope.numel() and not bool(slope.any())]
    if not still:
        return []
    enough = start - 1e-3 * (1.0 + abs(start))
    for size in _SIZES:
        for attempt in range(_TRIES):
            now = dict(params)
            for name in still:
                own, value = name_key(fold_in(key, attempt), name), params[name]
                now[name] = value + size * normal(own, value.shape, dtype=value.dtype)
            for _ in range(_STEPS):
                here, slopes = _downhill(loss, now)
                if here is None:
                    break
                if here < enough:
                    return still
                for name in still:
                    slope = slopes[name]
                    step = size * slope / slope.abs().max().clamp(min=1e-30)
                    now[name] = now[name] - 0.5 * step
    return []


def _downhill(
    loss: Callable[[Params], Tensor], params: Params
) -> tuple[float | None, dict[str, Tensor]]:
    """The loss and its gradient; no loss if it cannot be read, or is not finite."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        value = loss(leaves)
        if not value.requires_grad:
            return None, {}
        slopes = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    seen = plain(value.detach())
    if seen is None or not bool(seen.isfinite()):
        return None, {}
    return float(seen), dict(zip(leaves, slopes, strict=True))
