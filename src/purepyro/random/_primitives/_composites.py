"""Python functions of torch that make random calls inside.

A function mode is off while one of its handlers runs, so the random calls inside such a function
would escape to the global generator. Its body has to run with the mode on, and it must not announce
itself to the mode again: a copy of it is called, in which the check for modes is answered no.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import FunctionType, MappingProxyType
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional, init

Body = Callable[..., object]


def _functions(module: object, names: str) -> list[FunctionType]:
    found = (getattr(module, name, None) for name in names.split())
    return [function for function in found if isinstance(function, FunctionType)]


COMPOSITES = frozenset(
    _functions(
        functional,
        "alpha_dropout dropout dropout1d dropout2d dropout3d feature_alpha_dropout gumbel_softmax"
        " fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices"
        " multi_head_attention_forward rrelu",
    )
    + _functions(torch, "lobpcg pca_lowrank svd_lowrank")
)


@cache
def unchecked(function: FunctionType) -> Body:
    """A copy of a function of torch that does not ask whether a function mode is on."""
    checks = {
        name: _never for name in function.__globals__ if name.startswith("has_torch_function")
    }
    names = {**function.__globals__, **checks}
    code, defaults, cells = function.__code__, function.__defaults__, function.__closure__
    copy = FunctionType(code, names, function.__name__, defaults, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _never(*_: object) -> bool:
    return False


def _init_uniform(tensor: Tensor, a: float = 0.0, b: float = 1.0, **_: object) -> Tensor:
    with torch.no_grad():
        return tensor.uniform_(a, b)


def _init_normal(tensor: Tensor, mean: float = 0.0, std: float = 1.0, **_: object) -> Tensor:
    with torch.no_grad():
        return tensor.normal_(mean, std)


_gain: Callable[[str, float], float] = cast("Callable[..., float]", init.calculate_gain)


def _init_kaiming_uniform(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    **_: object,
) -> Tensor:
    if tensor.numel() == 0:
        return tensor
    receptive = math.prod(tensor.shape[2:])
    fan = tensor.shape[1 if mode == "fan_in" else 0] * receptive
    bound = _gain(nonlinearity, a) * math.sqrt(3.0 / fan)
    with torch.no_grad():
        return tensor.uniform_(-bound, bound)


def _pool(with_indices: Callable[..., tuple[Tensor, Tensor]]) -> Body:
    """A fractional max pooling, by the function of torch that also returns the indices."""

    def pool(
        input: Tensor,
        kernel_size: object,
        output_size: object = None,
        output_ratio: object = None,
        return_indices: bool = False,
        **samples: object,
    ) -> object:
        found = with_indices(input, kernel_size, output_size, output_ratio, **samples)
        return found if return_indices else found[0]

    return pool


# The initialisers ask `torch.overrides` by its full name. The pools announce themselves under the
# name of a dispatcher, which would call them again.
REPLACED: Mapping[object, Body] = MappingProxyType(
    {
        functional.fractional_max_pool2d: _pool(functional.fractional_max_pool2d_with_indices),
        functional.fractional_max_pool3d: _pool(functional.fractional_max_pool3d_with_indices),
        init.uniform_: _init_uniform,
        init.normal_: _init_normal,
        init.kaiming_uniform_: _init_kaiming_uniform,
    }
)
