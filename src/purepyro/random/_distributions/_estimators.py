"""Keyed draws of Pyro's distributions that come with gradient estimators of their own.

Pyro draws inside an `autograd.Function` that torch.func cannot see through. Here the number is
drawn outside, and that function's own backward pass is attached to it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Protocol, cast

import torch
from pyro.distributions import avf_mvn as _avf
from pyro.distributions import diag_normal_mixture as _mixture
from pyro.distributions import diag_normal_mixture_shared_cov as _shared
from pyro.distributions import gaussian_scale_mixture as _scales
from pyro.distributions import omt_mvn as _omt
from torch import Tensor
from torch.autograd import Function

from ..._compat._untyped import part, shape_of, tensor
from .._batch_invariant import matmul, sigmoid
from .._bits._shape import plan
from .._bits._words import normals, open_uniforms
from .._primitives import _discrete
from .._source import KeySource

Shape = tuple[int, ...]
Backward = Callable[[object, Tensor], tuple[Tensor | None, ...]]


class _Context(Protocol):
    saved_tensors: tuple[Tensor, ...]
    backward_pass: Backward
    count: int

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Attached(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(backward_pass: Backward, count: int, value: Tensor, *tensors: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: _Context, inputs: tuple[object, ...], output: Tensor) -> None:
        backward_pass, count, _, *tensors = inputs
        ctx.backward_pass = cast(Backward, backward_pass)
        ctx.count = cast(int, count)
        ctx.save_for_backward(*cast(list[Tensor], tensors)[ctx.count :])

    @staticmethod
    def backward(ctx: _Context, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved, outer = ctx.saved_tensors, grad_outputs[0]
        found = ctx.backward_pass(SimpleNamespace(saved_tensors=saved), outer)
        return None, None, None, *found[: ctx.count], *(None for _ in saved)


def attached(
    function: object, value: Tensor, parameters: tuple[Tensor, ...], saved: tuple[Tensor, ...]
) -> Tensor:
    """`value` with gradients to `parameters` by the backward pass of one of Pyro's functions."""
    outer = part(function, "backward")
    # Below `once_differentiable`, which would detach what torch.func has wrapped.
    backward_pass = cast(Backward, getattr(outer, "__wrapped__", outer))
    constants = tuple(one.detach() for one in saved)
    apply = cast(Callable[..., Tensor], part(_Attached, "apply"))
    return apply(backward_pass, len(parameters), value.detach(), *parameters, *constants)


def omt_multivariate_normal(source: KeySource, d: object, shape: Shape) -> Tensor:
    """`loc + L z` with the gradient of optimal transport (Jankowiak & Obermeyer 2018)."""
    loc, factor = tensor(d, "loc"), tensor(d, "scale_tril")
    white = normals(plan(source.next_key(loc.device), (*shape, *loc.shape)), loc.dtype)
    moved = matmul(white, factor.mT)
    return attached(part(_omt, "_OMTMVNSample"), loc + moved, (loc, factor), (moved, white, factor))


def avf_multivariate_normal(source: KeySource, d: object, shape: Shape) -> Tensor:
    """`loc + L z` with an adaptive velocity field (Jankowiak & Karaletsos 2018)."""
    loc, factor, control = tensor(d, "loc"), tensor(d, "scale_tril"), tensor(d, "control_var")
    white = normals(plan(source.next_key(loc.device), (*shape, *loc.shape)), loc.dtype)
    value = loc + matmul(white, factor.mT)
    return attached(
        part(_avf, "_AVFMVNSample"), value, (loc, factor, control), (factor, control, white)
    )


def mixture_of_normals(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A component's mean plus noise of its scales, with pathwise gradients of the weights."""
    locs, scales = tensor(d, "locs"), tensor(d, "coord_scale")
    logits, probs, which = _component(source, d, shape)
    picked = which[..., None, None].expand((*which.shape, 1, locs.shape[-1]))
    loc, scale = _picked(locs, picked), _picked(scales, picked)
    white = normals(plan(source.next_key(locs.device), tuple(loc.shape)), locs.dtype)
    value = loc + scale * white
    saved = (value, scales, locs, logits, probs)
    return attached(part(_mixture, "_MixDiagNormalSample"), value, (locs, scales, logits), saved)


def mixture_of_normals_shared(source: KeySource, d: object, shape: Shape) -> Tensor:
    """The same with one set of scales for all components."""
    locs, scale = tensor(d, "locs"), tensor(d, "coord_scale")
    logits, probs, which = _component(source, d, shape)
    picked = which[..., None, None].expand((*which.shape, 1, locs.shape[-1]))
    loc = _picked(locs, picked)
    white = normals(plan(source.next_key(locs.device), tuple(loc.shape)), locs.dtype)
    value = loc + scale * white
    saved = (value, scale, locs, logits, probs)
    function = part(_shared, "_MixDiagNormalSharedCovarianceSample")
    return attached(function, value, (locs, scale, logits), saved)


def gaussian_scale_mixture(source: KeySource, d: object, shape: Shape) -> Tensor:
    """Noise of one of several sizes, with pathwise gradients of the weights."""
    coord, sizes = tensor(d, "coord_scale"), tensor(d, "component_scale")
    logits, probs, which = _component(source, d, shape)
    full = (*shape, coord.shape[-1])
    white = normals(plan(source.next_key(coord.device), full), coord.dtype)
    value = coord * _taken(sizes, which).unsqueeze(-1) * white
    saved = (value, coord, logits, sizes, probs, tensor(d, "coeffs"))
    return attached(part(_scales, "_GSMSample"), value, (coord, logits, sizes), saved)


def relaxed_bernoulli_straight_through(source: KeySource, d: object, shape: Shape) -> Tensor:
    """0 or 1 with the gradient of the relaxed number, which the density is asked for."""
    base = tensor(d, "logits")
    full = (*shape, *shape_of(d, "batch_shape"))
    uniform = _inside(open_uniforms(plan(source.next_key(base.device), full), base.dtype))
    noise = torch.log(uniform) - torch.log1p(-uniform)
    soft = _inside(sigmoid((noise + base) / tensor(d, "temperature")))
    return _quantized(soft, torch.round(soft.detach()))


def relaxed_categorical_straight_through(source: KeySource, d: object, shape: Shape) -> Tensor:
    """A one-hot vector with the gradient of the relaxed vector, which the density is asked for."""
    logits = tensor(d, "logits")
    full = (*shape, *logits.shape)
    uniform = _inside(open_uniforms(plan(source.next_key(logits.device), full), logits.dtype))
    scores = (logits - torch.log(-torch.log(uniform))) / tensor(d, "temperature")
    soft = _inside(torch.softmax(scores, -1))
    each = torch.arange(logits.shape[-1], device=logits.device)
    largest = soft.detach().argmax(-1, keepdim=True)
    return _quantized(soft, (each == largest).to(logits.dtype))


def _quantized(soft: Tensor, hard: Tensor) -> Tensor:
    value = hard + (soft - soft.detach())
    # Pyro's `log_prob` looks for the relaxed value under this name.
    vars(value)["_unquantize"] = soft
    return value


def _inside(probs: Tensor) -> Tensor:
    eps = torch.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def _component(source: KeySource, d: object, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of a mixture as logits and probabilities, and which component is drawn."""
    logits = tensor(d, "component_logits")
    probs = torch.softmax(logits.detach(), -1)
    wide = probs.expand((*shape, *probs.shape))
    which = _discrete.categorical(source.next_key(logits.device), wide, 1)
    return logits, probs, which.squeeze(-1)


def _picked(values: Tensor, picked: Tensor) -> Tensor:
    """The chosen component's row of (*batch, components, dim)."""
    wide = values.expand((*picked.shape[:-2], *values.shape[-2:]))
    return wide.gather(-2, picked).squeeze(-2)


def _taken(values: Tensor, which: Tensor) -> Tensor:
    """The chosen component's number of (components,)."""
    return (
        values.expand((*which.shape, values.shape[-1])).gather(-1, which.unsqueeze(-1)).squeeze(-1)
    )
