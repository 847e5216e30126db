"""What a fit carries along and gives back: plain tuples of tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

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

    Example:
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


class SVIRunResult(NamedTuple):
    """What :meth:`SVI.run` returns.

    Attributes:
        state: The state after the last step.
        losses: The loss of every step, of shape ``(num_steps,)``.

    Example:
        >>> import torchopt
        >>> from purepyro import random
        >>> from purepyro.infer import SVI
        >>> result = SVI(lambda: None, lambda: None, torchopt.adam(0.1)).run(random.key(0), 2)
        >>> result.losses.abs()
        tensor([0., 0.])
    """

    state: SVIState
    losses: Tensor


class SVIRecord(NamedTuple):
    """One step of a run, as :meth:`SVI.iterate` yields it and a callback gets it.

    Attributes:
        step: How many steps this run has taken, with this one.
        state: The state after the step.
        loss: The loss before it, a scalar; reading it (``.item()``) waits for the device.

    Example:
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
