"""Which function of torch has which keyed version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..._compat._random import SAMPLE_DIRICHLET, STANDARD_GAMMA
from . import _dropout, _factories, _inplace, _parameters
from ._recurrent import RECURRENT
from ._writing import in_place

Handler = Callable[..., object]


_BY_NAME: Mapping[str, Handler] = {
    "rand": _factories.rand,
    "randn": _factories.randn,
    "rand_like": _factories.rand_like,
    "randn_like": _factories.randn_like,
    "randint": _factories.randint,
    "randint_like": _factories.randint_like,
    "randperm": _factories.randperm,
    "normal": _factories.normal,
    "bernoulli": _parameters.bernoulli,
    "multinomial": _parameters.multinomial,
    "poisson": _parameters.poisson,
    "binomial": _parameters.binomial,
    "dropout": _dropout.dropout,
    "feature_dropout": _dropout.feature_dropout,
    "alpha_dropout": _dropout.alpha_dropout,
    "feature_alpha_dropout": _dropout.feature_alpha_dropout,
    "native_dropout": _dropout.native_dropout,
    "rrelu": _dropout.rrelu,
}
_IN_PLACE = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "rrelu")
_METHODS: Mapping[str, Handler] = {
    "normal_": _inplace.normal_,
    "uniform_": _inplace.uniform_,
    "exponential_": _inplace.exponential_,
    "cauchy_": _inplace.cauchy_,
    "log_normal_": _inplace.log_normal_,
    "geometric_": _inplace.geometric_,
    "bernoulli_": _inplace.bernoulli_,
    "random_": _inplace.random_,
    "bernoulli": _parameters.bernoulli,
    "multinomial": _parameters.multinomial,
}

KEYED: Mapping[object, Handler] = MappingProxyType(
    {getattr(torch, name): handler for name, handler in {**_BY_NAME, **RECURRENT}.items()}
    | {getattr(torch, f"{name}_"): in_place(_BY_NAME[name]) for name in _IN_PLACE}
    | {getattr(Tensor, name): handler for name, handler in _METHODS.items()}
    | {STANDARD_GAMMA: _parameters.standard_gamma}
    | {SAMPLE_DIRICHLET: _parameters.sample_dirichlet}
    | {torch.nn.functional.scaled_dot_product_attention: _dropout.attention}
)
