"""Keyed versions of torch's recurrent kernels, as loops over time of plain operations.

Torch's kernels have no rule for vmap, and draw dropout where no key reaches. Where neither matters
they are called as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..._compat._transforms import is_transforming
from ..._errors import UnsupportedLayerError
from .._source import KeySource
from ._dropout import dropout

States: TypeAlias = tuple[Tensor, ...]
Weights: TypeAlias = Sequence[Tensor]
Cell: TypeAlias = Callable[[Tensor, States, Weights, bool], States]
Kernel: TypeAlias = Callable[..., object]


# The cells: from an input that went through its own weights, and the states before, to those after.


def _lstm(x: Tensor, states: States, weights: Weights, biased: bool) -> States:
    hidden, cell = states
    i, f, g, o = (x + _of_hidden(hidden, weights, biased)).chunk(4, -1)
    new = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    out = o.sigmoid() * new.tanh()
    projected = len(weights) == (5 if biased else 3)
    return (linear(out, weights[-1]) if projected else out), new


def _gru(x: Tensor, states: States, weights: Weights, biased: bool) -> States:
    (hidden,) = states
    (r, z, n), (rh, zh, nh) = x.chunk(3, -1), _of_hidden(hidden, weights, biased).chunk(3, -1)
    reset, update = (r + rh).sigmoid(), (z + zh).sigmoid()
    new = (n + reset * nh).tanh()
    return (new + update * (hidden - new),)


def _tanh(x: Tensor, states: States, weights: Weights, biased: bool) -> States:
    return ((x + _of_hidden(states[0], weights, biased)).tanh(),)


def _relu(x: Tensor, states: States, weights: Weights, biased: bool) -> States:
    return ((x + _of_hidden(states[0], weights, biased)).relu(),)


def _of_hidden(hidden: Tensor, weights: Weights, biased: bool) -> Tensor:
    """What the hidden state contributes to the gates."""
    return linear(hidden, weights[1], weights[3] if biased else None)


def _direction(
    cell: Cell, x: Tensor, states: States, weights: Weights, biased: bool, *, backward: bool
) -> tuple[Tensor, States]:
    """One layer in one direction: its outputs over time, in the order of time, and its end."""
    inputs = linear(x, weights[0], weights[2] if biased else None).unbind(0)
    outputs = []
    for step in reversed(inputs) if backward else inputs:
        states = cell(step, states, weights, biased)
        outputs.append(states[0])
    return torch.stack(outputs[::-1] if backward else outputs), states


def _unrolled(
    source: KeySource,
    cell: Cell,
    input: Tensor,
    starts: States,
    params: Weights,
    biased: bool,
    layers: int,
    drop: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    directions = 2 if bidirectional else 1
    each = len(params) // (layers * directions)
    x = input.transpose(0, 1) if batch_first else input
    ends: list[States] = []
    for layer in range(layers):
        if layer:
            x = dropout(source, x, drop, train)
        outputs = []
        for place in range(layer * directions, (layer + 1) * directions):
            weights = params[place * each : (place + 1) * each]
            states = tuple(start[place] for start in starts)
            backward = place % directions == 1
            out, end = _direction(cell, x, states, weights, biased, backward=backward)
            outputs.append(out)
            ends.append(end)
        x = torch.cat(outputs, -1)
    last = tuple(torch.stack(kind) for kind in zip(*ends, strict=True))
    return (x.transpose(0, 1) if batch_first else x, *last)


def _recurrent(kernel: Kernel, cell: Cell) -> Kernel:
    """The keyed version of a kernel over a sequence.

    Its arguments: (input, start, params, has_biases, layers, dropout, train, bidirectional,
    batch_first), or those of a packed sequence, with the sizes of its batches in second place.
    """

    def keyed(source: KeySource, *args: Any) -> object:
        packed = not isinstance(args[2], (tuple, list)) or isinstance(args[3], (tuple, list))
        drop, train = (args[6], args[7]) if packed else (args[5], args[6])
        drops = bool(train and drop)
        if not drops and not is_transforming():
            return kernel(*args)
        if packed:
            raise UnsupportedLayerError(
                "A recurrent layer got a PackedSequence "
                f"{'and drops units' if drops else 'under a transform or a trace'}, where it is "
                "computed step by step for a batch of one length. Pad the sequences by "
                "pad_packed_sequence and mask what lies beyond their ends."
            )
        input, start, *rest = args
        starts = (start,) if isinstance(start, Tensor) else tuple(start)
        return _unrolled(source, cell, input, starts, *rest)

    return keyed


def _single(kernel: Kernel, cell: Cell) -> Kernel:
    """The keyed version of a kernel for one step: (input, state, w_ih, w_hh, b_ih, b_hh)."""

    def keyed(source: KeySource, input: Tensor, state: object, *params: Tensor | None) -> object:
        if not is_transforming():
            return kernel(input, state, *params)
        weights = [param for param in params if param is not None]
        biased = len(weights) == 4
        states = (state,) if isinstance(state, Tensor) else state
        assert isinstance(states, (tuple, list))
        x = linear(input, weights[0], weights[2] if biased else None)
        new = cell(x, tuple(states), weights, biased)
        return new[0] if len(new) == 1 else new

    return keyed


_CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _tanh, "rnn_relu": _relu}

RECURRENT: dict[str, Kernel] = {
    **{name: _recurrent(getattr(torch, name), cell) for name, cell in _CELLS.items()},
    **{f"{name}_cell": _single(getattr(torch, f"{name}_cell"), c) for name, c in _CELLS.items()},
}
