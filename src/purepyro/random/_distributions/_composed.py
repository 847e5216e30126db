"""Keyed draws of distributions that are made of other distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from pyro.distributions import hmm as _hmm
from pyro.ops.indexing import Vindex
from torch import Tensor

from ..._compat._untyped import call, number, part, shape_of, tensor
from .._batch_invariant import row_sum, softmax
from .._bits._shape import plan
from .._bits._words import uniforms
from .._primitives import _discrete
from .._source import KeySource
from ._scalars import wrapped

Shape = tuple[int, ...]
Draw = Callable[[KeySource, object, Shape], Tensor]


def of_base(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """A draw of `base_dist`: for wrappers that change the density only."""
    return draw(source, part(d, "base_dist"), shape)


def expanded(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """Independent draws of the base for the dimensions that Pyro expands."""
    base = part(d, "base_dist")
    return call(part(d, "_sample"), lambda size: draw(source, base, tuple(size)), torch.Size(shape))


def transformed(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """A draw of the base sent through the transforms."""
    value = draw(source, part(d, "base_dist"), shape)
    for transform in cast(Iterable[object], part(d, "transforms")):
        value = call(transform, value)
    return value


def affine_beta(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """The same, kept off the ends of the interval as in Pyro."""
    value = transformed(draw, source, d, shape)
    margin = torch.finfo(value.dtype).eps * tensor(d, "scale")
    low, high = tensor(d, "low") + margin, tensor(d, "high") - margin
    return torch.minimum(torch.maximum(value, low), high)


def mixture_same_family(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """A draw of every component, of which one is picked."""
    picked = draw(source, part(d, "mixture_distribution"), shape)
    values = draw(source, part(d, "component_distribution"), shape)
    event = shape_of(d, "event_shape")
    place = picked.reshape(*picked.shape, 1, *(1 for _ in event))
    dim = picked.dim()
    return values.gather(dim, place.expand((*picked.shape, 1, *event))).squeeze(dim)


def masked_mixture(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """A draw of both components, picked by the mask."""
    mask = tensor(d, "mask")
    mask = mask.reshape((*mask.shape, *(1 for _ in shape_of(d, "event_shape"))))
    first = draw(source, part(d, "component0"), shape)
    second = draw(source, part(d, "component1"), shape)
    return torch.where(mask, second, first)


def zero_inflated(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """Zero with the gate's probability, else a draw of the base."""
    gate = tensor(d, "gate").detach()
    full = (*shape, *shape_of(d, "batch_shape"))
    zero = uniforms(plan(source.next_key(gate.device), full), gate.dtype) < gate
    value = draw(source, part(d, "base_dist"), shape)
    return torch.where(zero, torch.zeros_like(value), value)


def sine_skewed(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """Ameijeiras-Alonso & Ley (2020), section 2.3: a draw of the base, reflected at random."""
    base, skewness = part(d, "base_dist"), tensor(d, "skewness").detach()
    value = draw(source, base, shape).detach()
    mean = tensor(base, "mean").detach()
    full = (*shape, *shape_of(d, "batch_shape"))
    uniform = uniforms(plan(source.next_key(value.device), full), value.dtype)
    bias = row_sum(skewness * torch.sin(value - mean))
    kept = (uniform <= 0.5 + 0.5 * bias).unsqueeze(-1)
    return wrapped(torch.where(kept, value, 2 * mean - value))


def discrete_hmm(draw: Draw, source: KeySource, d: object, shape: Shape) -> Tensor:
    """A path of hidden states, and a draw of the observations for the states it visits."""
    initial, step = tensor(d, "initial_logits").detach(), tensor(d, "transition_logits").detach()
    batch, duration, states = shape_of(d, "batch_shape"), number(d, "duration"), step.shape[-1]
    full = (*shape, *batch)
    first = _index(source, initial.expand((*full, states)))
    steps = _index(source, step.expand((*full, duration, states, states)))
    paths = call(part(_hmm, "_sequential_index"), steps)
    path = _indexed(paths, (..., slice(None), first))
    emission = part(d, "observation_dist")
    each = call(part(emission, "expand"), torch.Size((*batch, duration, states)))
    values = draw(source, each, shape)
    rest = (slice(None),) * len(shape_of(emission, "event_shape"))
    return _indexed(values, (..., path, *rest))


def _index(source: KeySource, logits: Tensor) -> Tensor:
    """A category for each row of logits."""
    probs = softmax(logits, -1)
    return _discrete.categorical(source.next_key(logits.device), probs, 1).squeeze(-1)


def _indexed(values: Tensor, index: tuple[object, ...]) -> Tensor:
    """Pyro's vectorised indexing."""
    view: Callable[[Tensor], object] = Vindex
    return call(part(view(values), "__getitem__"), index)
