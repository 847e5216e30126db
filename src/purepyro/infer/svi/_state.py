"""What a fit carries along and gives back: plain tuples of tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..._core._text import ends_of, number_text, table_of, tensors_text
from ..._core._types import Params, State
from ...random import Key
from ._optimizers import OptState

_NO_BUFFERS: State = {}


class SVIState(NamedTuple):
    """All that a step needs and changes: a pytree of tensors.

    Attributes:
        params: Unconstrained parameters of model and guide, by name.
        opt_state: The optimiser's state.
        key: The run's key; step number ``i`` uses ``fold_in(key, i)``.
        step: How many steps were taken, an int64 scalar.
        buffers: The buffers of the networks in model and guide (the statistics of BatchNorm), by
            name. Each step takes them in and gives them out; particles have their own, of which
            the mean comes out.

    Examples:
        >>> import torch, torchopt
        >>> from purepyro import random
        >>> from purepyro.infer import SVI
        >>> state = SVI(lambda: None, lambda: None, torchopt.adam(0.1)).init(random.key(0))
        >>> state.params, state.step
        ({}, tensor(0))
    """

    params: Params
    opt_state: OptState
    key: Key
    step: Tensor
    buffers: State = _NO_BUFFERS

    def __repr__(self) -> str:
        buffers = f", buffers={tensors_text(self.buffers)}" if self.buffers else ""
        return (
            f"SVIState(step={number_text(self.step)}, params={tensors_text(self.params)}{buffers})"
        )


class SVIRunResult(NamedTuple):
    """What ``SVI.run()`` returns.

    Attributes:
        state: The state after the last step.
        losses: The loss of every step, of shape ``(num_steps,)``.

    Examples:
        >>> import torchopt
        >>> from purepyro import random
        >>> from purepyro.infer import SVI
        >>> result = SVI(lambda: None, lambda: None, torchopt.adam(0.1)).run(random.key(0), 2)
        >>> result.losses.abs()
        tensor([0., 0.])
    """

    state: SVIState
    losses: Tensor

    def __repr__(self) -> str:
        return f"SVIRunResult({ends_of(self.losses)}, state={self.state!r})"

    def _repr_html_(self) -> str:
        rows = [
            [name, str(list(value.shape)), str(value.dtype).removeprefix("torch.")]
            for name, value in self.state.params.items()
        ]
        return table_of(["parameter", "shape", "dtype"], rows, f"SVI: {ends_of(self.losses)}")


class SVIRecord(NamedTuple):
    """One step of a run, as ``SVI.iterate()`` yields it and a callback gets it.

    Attributes:
        step: How many steps this run has taken, with this one.
        state: The state after the step.
        loss: The loss before it, a scalar; reading it (``.item()``) waits for the device.

    Examples:
        >>> import torchopt
        >>> from purepyro import random
        >>> from purepyro.infer import SVI
        >>> svi = SVI(lambda: None, lambda: None, torchopt.adam(0.1))
        >>> for record in svi.iterate(svi.init(random.key(0))):
        ...     if record.step == 3:
        ...         break
        >>> record.state.step
        tensor(3)
    """

    step: int
    state: SVIState
    loss: Tensor
