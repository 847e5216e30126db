"""Keyed versions of torch's dropout family and of the random leaky ReLU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._compat._transforms import is_batched
from .._bits._shape import plan
from .._bits._words import uniforms
from .._source import KeySource

# The value that a dropped unit takes in alpha dropout, negated: Klambauer et al. (2017), section 2.
_ALPHA = 1.7580993408473766


def dropout(source: KeySource, input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.dropout`: units zeroed with probability `p`, the others scaled by 1 / (1 - p)."""
    return _dropped(source, input, p, train, tuple(input.shape))


def feature_dropout(source: KeySource, input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.feature_dropout`: whole channels at a time."""
    return _dropped(source, input, p, train, _channels(input))


def alpha_dropout(source: KeySource, input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.alpha_dropout`: dropout that keeps mean and variance of a SELU's output."""
    return _alpha_dropped(source, input, p, train, tuple(input.shape))


def feature_alpha_dropout(source: KeySource, input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.feature_alpha_dropout`."""
    return _alpha_dropped(source, input, p, train, _channels(input))


def native_dropout(
    source: KeySource, input: Tensor, p: float, train: bool | None
) -> tuple[Tensor, Tensor]:
    """`torch.native_dropout`: the result and the mask of the units kept."""
    if train is False or p == 0.0:
        return input.clone(), torch.ones_like(input, dtype=torch.bool)
    kept = _kept(source, input, p, tuple(input.shape))
    return input * (kept.to(input.dtype) * _scale(p)), kept


def rrelu(
    source: KeySource,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    **_: object,
) -> Tensor:
    """`torch.rrelu`: a random slope below zero for each unit, while training."""
    if not training:
        return torch.nn.functional.leaky_relu(input, (lower + upper) / 2)
    uniform = uniforms(plan(source.next_key(input.device), tuple(input.shape)), input.dtype)
    return torch.where(input > 0, input, input * (uniform * (upper - lower) + lower))


def attention(
    source: KeySource,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention`, by plain operations where torch's kernel will not do.

    Its dropout is drawn where no mode can see it, and it has no rule for vmap.
    """
    given = [t for t in (query, key, value, attn_mask) if t is not None]
    if dropout_p == 0.0 and not any(map(is_batched, given)):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ key.mT * factor
    if is_causal:
        attn_mask = torch.ones_like(scores[0, 0] if scores.dim() == 4 else scores).tril().bool()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    if attn_mask is None:
        weights = scores.softmax(-1)
    else:  # as in torch's kernel, who may look at nothing sees zeros, also in the gradient
        nothing = (scores == -torch.inf).all(-1, keepdim=True)
        weights = scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return dropout(source, weights, dropout_p, True) @ value


def _channels(input: Tensor) -> tuple[int, ...]:
    return (*input.shape[:2], *(1 for _ in input.shape[2:]))


def _kept(source: KeySource, input: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    return uniforms(plan(source.next_key(input.device), shape), torch.float32) >= p


def _scale(p: float) -> float:
    return 1 / (1 - p) if p < 1.0 else 0.0


def _dropped(
    source: KeySource, input: Tensor, p: float, train: bool, shape: tuple[int, ...]
) -> Tensor:
    if not train or p == 0.0 or input.numel() == 0:
        return input
    return input * (_kept(source, input, p, shape).to(input.dtype) * _scale(p))


def _alpha_dropped(
    source: KeySource, input: Tensor, p: float, train: bool, shape: tuple[int, ...]
) -> Tensor:
    if not train or p == 0.0 or input.numel() == 0:
        return input
    if p == 1.0:
        return input * 0.0
    kept = _kept(source, input, p, shape).to(input.dtype)
    slope = 1 / math.sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    return input * (kept * slope) + ((kept - 1) * _ALPHA * slope + _ALPHA * slope * p)
