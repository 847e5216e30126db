"""Stochastic variational inference as a pure state machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, ParamSpec

import attrs
import torch
from torch import Tensor
from tqdm import trange

from .._errors import DeclarationError, ShapeError, describe
from .._execute import root_of
from .._init import initial
from .._types import Params
from ..random import Key, fold_in, name_key
from ..random._reuse import consume
from ._elbo import ELBO, Trace_ELBO, run_both
from ._gradients import value_and_gradients
from ._optimizers import Optimizer, OptState, descend

P = ParamSpec("P")


class SVIState(NamedTuple):
    """All that a step needs and changes: a pytree of tensors.

    Attributes:
        params: Unconstrained parameters of model and guide, by name.
        opt_state: The optimiser's state.
        key: The run's key; step number ``i`` uses ``fold_in(key, i)``.
        step: How many steps were taken, an int64 scalar.

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
        >>> result.losses
        tensor([-0., -0.])
    """

    state: SVIState
    losses: Tensor


@attrs.frozen
class SVI(Generic[P]):
    """Fits a guide to a model, by pure functions of an explicit state.

    Attributes:
        model: Any model that ``apply`` takes.
        guide: The same, with the same arguments, and a site for each latent one of the model.
        optim: A functional optimiser, such as ``torchopt.adam(1e-2)``.
        loss: What to minimise.
        progress_bar: Whether :meth:`run` shows one; by default if a terminal looks on.

    Source: ``pyro.infer.SVI``, with the functional shape of NumPyro's.

    Example:
        >>> import torch, torchopt, pyro, pyro.distributions as dist
        >>> from purepyro import random
        >>> from purepyro.infer import SVI, AutoNormal
        >>> def model(y):
        ...     loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(y)):
        ...         pyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        >>> y = torch.tensor([1.0, 2.0, 3.0])
        >>> svi = SVI(model, AutoNormal(model), torchopt.adam(0.1))
        >>> state, losses = svi.run(random.key(0), 200, y)
        >>> bool((state.params["locs.loc"] - 2.0).abs() < 0.3), losses.shape
        (True, torch.Size([200]))
    """

    model: Callable[P, object]
    guide: Callable[P, object]
    optim: Optimizer
    loss: ELBO = attrs.field(factory=Trace_ELBO)
    progress_bar: bool | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not callable(getattr(self.optim, "init", None)) or isinstance(self.optim, type):
            raise DeclarationError(
                f"SVI got the optimiser {describe(self.optim)}, which is no (init, update) pair, "
                "so it could not be pure. Write for example torchopt.adam(1e-2)."
            )

    def init(self, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> SVIState:
        """The state before the first step; complete, so that it can be loaded into.

        Raises:
            MissingNameError: if the guide has no site for a latent one of the model.
            UnknownNameError: if the guide has a site that the model does not.
            ShapeError: if the two differ in a site's shape.
        """
        consume(key, "SVI.init")
        params = self._initial_params(name_key(key, "init"), args, kwargs)
        with torch.no_grad():  # a first look: do model and guide match, are the shapes right?
            check = name_key(key, "check")
            run_both(self.model, self.guide, params, check, args, kwargs)
        opt_state = self.optim.init(params)
        step = torch.zeros((), dtype=torch.int64, device=key.device)
        return SVIState(params, opt_state, key, step)

    def step(
        self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[SVIState, Tensor]:
        """One step of the optimiser; returns the new state and the loss before the step."""
        key = fold_in(state.key, state.step)

        def loss(params: Params) -> Tensor:
            return self.loss.loss(self.model, self.guide, params, key, *args, **kwargs)

        value, gradients = value_and_gradients(loss, state.params)
        params, opt_state = descend(self.optim, gradients, state.opt_state, state.params)
        return SVIState(params, opt_state, state.key, state.step + 1), value

    def evaluate(self, state: SVIState, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """The loss at ``state``, with the noise of its next step."""
        key = fold_in(state.key, state.step)
        with torch.no_grad():
            return self.loss.loss(self.model, self.guide, state.params, key, *args, **kwargs)

    def run(self, key: Key, num_steps: int, /, *args: P.args, **kwargs: P.kwargs) -> SVIRunResult:
        """Initialise from ``key`` and take ``num_steps`` steps."""
        state = self.init(key, *args, **kwargs)
        losses: list[Tensor] = []
        hidden = not (sys.stderr.isatty() if self.progress_bar is None else self.progress_bar)
        with trange(num_steps, disable=hidden, desc="SVI", mininterval=0.5) as steps:
            for _ in steps:
                state, loss = self.step(state, *args, **kwargs)
                losses.append(loss)
                if not hidden and len(losses) % 100 == 0:
                    steps.set_postfix(loss=f"{loss.item():.4g}", refresh=False)
        return SVIRunResult(state, torch.stack(losses) if losses else torch.zeros(0))

    def _initial_params(self, key: Key, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Params:
        of_model = initial(self.model, key, args, kwargs).params
        of_guide = initial(self.guide, key, args, kwargs).params
        # In plain Pyro functions one name is one parameter, wherever it stands.
        both = of_model.keys() & of_guide.keys()
        modules = root_of(self.model) is not None and root_of(self.guide) is not None
        for name in sorted(both):
            if modules or of_model[name].shape != of_guide[name].shape:
                raise ShapeError(
                    f"Model and guide both have a parameter {name!r} ({describe(of_model[name])} "
                    f"and {describe(of_guide[name])}), so one would overwrite the other. Rename "
                    "the guide's."
                )
        return {**of_guide, **of_model}
