"""What SVI is given, refused at once where it cannot work: habits from Pyro, and slips."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..._core._whole_numbers import whole
from ..._errors import DeclarationError, ShapeError, describe
from ..losses._elbo import ELBO
from ._optimizers import Optimizer, PerParameter
from ._state import SVIState


def check_optim(optim: Optimizer) -> None:
    """Refuse what is no pair of functions.

    Raises:
        DeclarationError: saying what to write instead.
    """
    each: object
    for each in (
        [one for _, one in optim.optimizers] if isinstance(optim, PerParameter) else [optim]
    ):
        if not callable(getattr(each, "init", None)) or isinstance(each, type):
            raise DeclarationError(
                f"SVI got the optimiser {describe(each)}, which is no (init, update) pair, "
                "so it could not be pure. Write for example torchopt.adam(1e-2)."
            )


def check_loss(loss: ELBO) -> None:
    """Refuse a class in place of an instance, a loss of Pyro's, and what is no loss at all.

    Raises:
        DeclarationError: saying what to write instead.
    """
    given: object = loss
    if isinstance(given, type):
        raise DeclarationError(
            f"SVI got the loss {given.__name__}, a class; a loss is an instance, with its "
            f"settings. Write {given.__name__}()."
        )
    name, home = type(given).__name__, type(given).__module__
    if home.partition(".")[0] == "pyro":
        raise DeclarationError(
            f"SVI got the loss {home}.{name} of Pyro, which reads its parameters from Pyro's store "
            "and draws without a key, so a step could not be pure. Write purepyro.infer."
            f"{name}(), or another loss of purepyro.infer."
        )
    if not callable(getattr(given, "loss", None)):
        raise DeclarationError(
            f"SVI got the loss {describe(given)}, which has no method loss(model, guide, params, "
            "key, *args). Write for example Trace_ELBO()."
        )


def check_order(model: Callable[..., object], guide: Callable[..., object]) -> None:
    """Refuse a guide in the place of the model that it is made for.

    Raises:
        DeclarationError: saying the right order.
    """
    inner: object = getattr(model, "model", None)
    if inner is not None and inner is guide:
        raise DeclarationError(
            f"SVI got the guide {type(model).__name__} as its model, and the model it was made for "
            "as its guide. The order is SVI(model, guide, optim, loss)."
        )


def check_state(state: SVIState, what: str) -> None:
    """Refuse anything but a state in the place of one.

    Raises:
        DeclarationError: saying where a state comes from.
    """
    given: object = state
    if not isinstance(given, SVIState):
        raise DeclarationError(
            f"SVI.{what} got {describe(given)} as its state, which is none: a step is a pure "
            "function of an explicit state, unlike Pyro's. Write state = svi.init(key, *args), "
            f"then {_CALLS.get(what, f'svi.{what}(state, ...)')}."
        )


_CALLS = {
    "step": "state, loss = svi.step(state, *args)",
    "evaluate": "svi.evaluate(state, *args)",
    "run_from": "svi.run_from(state, num_steps, *args)",
    "fit_from": "svi.fit_from(state, batches, data_size=...)",
}


def check_run(key: object, num_steps: object) -> int:
    """The number of steps as a plain int; refuse one that is none, or stands where the key does.

    Raises:
        ShapeError: saying what a number of steps is.
        DeclarationError: if key and number are in the wrong order.
    """
    if whole(key, 0) is not None and isinstance(num_steps, torch.Tensor):
        raise DeclarationError(
            f"SVI.run got {describe(key)} as its key and {describe(num_steps)} as the number of "
            "steps. The order is svi.run(key, num_steps, *args), with key = random.key(seed)."
        )
    return check_count(num_steps, "num_steps")


def check_count(count: object, name: str) -> int:
    """A number of steps or epochs as a plain int; refuse one that is no number."""
    number = whole(count, 0)
    if number is None:
        raise ShapeError(
            f"{name} is {describe(count)}, and a run takes a whole number of steps, forward. Give "
            f"an int {name} >= 0."
        )
    return number
