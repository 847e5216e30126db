"""Our losses behind the interface of Pyro's, for Pyro's own tests to judge."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import attrs
import pyro
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.elbo import ELBO
from pyro.infer.util import torch_item
from pyro.poutine import runtime
from pyro.poutine.messenger import Messenger
from torch import Tensor

import purepyro.infer
from purepyro import PurepyroError, random

from .compare import draw

_SEED = int(os.environ.get("PEER_SEED", "0"))


class NotOfferedError(NotImplementedError):
    """A method of Pyro's losses that ours do not have."""


class Draws:
    """The keys of a process in which Pyro's plain draws are ours too.

    ``pyro.set_rng_seed(n)`` starts again at ``key(n)``. Each loss that is computed uses a key up;
    a plain draw in between takes the key that the next loss will take, so that a test which seeds,
    computes a loss, seeds again and looks at a trace sees the loss's draws.
    """

    def __init__(self) -> None:
        self.losses = 0
        self._base, self._count = random.key(0), 0
        self._seen: dict[str, int] = {}

    def install(self) -> None:
        """Take the place of Pyro's generator for this whole process."""
        default, seed = runtime.default_process_message, pyro.set_rng_seed

        def process(msg: Any) -> None:
            served = msg["done"] or msg["is_observed"] or msg["value"] is not None
            if msg["type"] == "sample" and not served:
                msg["value"] = draw(self._of_site(msg["name"]), msg)
            default(msg)

        def set_rng_seed(rng_seed: int) -> None:
            seed(rng_seed)
            self.seed(rng_seed)

        runtime.default_process_message = process
        pyro.set_rng_seed = set_rng_seed

    def seed(self, number: int) -> None:
        """Start again; ``PEER_SEED`` gives other draws at every seed of the tests."""
        self._base, self._count = random.fold_in(random.key(number), _SEED), 0
        self._seen.clear()

    def next(self) -> random.Key:
        """The key of a loss."""
        key = self._current()
        self._count += 1
        self._seen.clear()
        return key

    def _current(self) -> random.Key:
        return random.fold_in(self._base, self._count) if self._count else self._base

    def _of_site(self, name: str) -> random.Key:
        key = random.name_key(self._current(), name)
        before = self._seen.get(name, 0)
        self._seen[name] = before + 1
        return random.fold_in(key, before) if before else key


DRAWS = Draws()


@attrs.frozen
class _Statement:
    """A ``pyro.param`` statement that can be made again."""

    name: str
    value: Tensor
    constraint: Any
    event_dim: int | None


class _Params(Messenger):
    """Parameters for a run that does not know its own: those of Pyro's store, and new ones."""

    def __init__(self) -> None:
        super().__init__()
        store = pyro.get_param_store()
        self._store: dict[str, tuple[Tensor, Any]] = {
            name: (store[name], store._constraints[name]) for name in store
        }
        self.statements: dict[str, _Statement] = {}

    def _pyro_param(self, msg: Any) -> None:
        name, event_dim = msg["name"], msg["kwargs"].get("event_dim")
        constraint = msg["kwargs"].get("constraint", constraints.real)
        start = msg["args"][1] if len(msg["args"]) > 1 else None
        if name in self._store:
            value, constraint = self._store[name]
        elif start is None:
            return  # refused, as it should be
        else:
            made: Any = start() if callable(start) and not isinstance(start, Tensor) else start
            value = self._store.setdefault(name, (made, constraint))[0]
        self.statements.setdefault(name, _Statement(name, value, constraint, event_dim))
        msg["value"] = copied = value.detach().clone()
        setattr(copied, "unconstrained", lambda: copied)  # noqa: B010  # plates ask for it
        msg["done"] = True


class _FromStore(Messenger):
    """Completes the statements that only name a parameter of Pyro's store."""

    def __init__(self) -> None:
        super().__init__()
        store = pyro.get_param_store()
        self._store = {name: (store[name].detach(), store._constraints[name]) for name in store}

    def _pyro_param(self, msg: Any) -> None:
        if len(msg["args"]) == 1 and msg["name"] in self._store:
            value, constraint = self._store[msg["name"]]
            msg["args"] = (msg["name"], value)
            msg["kwargs"] = {**msg["kwargs"], "constraint": constraint}


def _within(messenger: Messenger, fn: Callable[..., object]) -> Callable[..., object]:
    def run(*args: object, **kwargs: object) -> object:
        with messenger:
            return fn(*args, **kwargs)

    return run


class Ours(ELBO):
    """One of our losses, with Pyro's arguments; the parameters are those of Pyro's store."""

    ours: type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._statements: dict[tuple[object, object], list[_Statement]] = {}

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The loss as a number."""
        value = self.differentiable_loss(model, guide, *args, **kwargs)
        return float(torch_item(value.detach()))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The same; the gradients are left in the store's parameters."""
        value = self.differentiable_loss(model, guide, *args, **kwargs)
        if value.requires_grad:
            torch.autograd.backward(value, retain_graph=self.retain_graph)
        return float(torch_item(value.detach()))

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as a function of the store's unconstrained parameters."""
        DRAWS.losses += 1
        key = DRAWS.next()
        with nullcontext() if self.strict_enumeration_warning else _unwarned():
            value: Tensor = self._computed("loss", model, guide, key, args, kwargs)
        return value

    def _computed(
        self,
        method: str,
        model: Any,
        guide: Any,
        key: random.Key,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """What a method of ours gives at the parameters of Pyro's store.

        Which they are a first run finds out, which makes those that are not there yet.
        """
        compute = getattr(self._made(), method)
        known = self._statements.get((model, guide))
        if known is not None:
            try:
                return _at(known, compute, model, guide, key, args, kwargs)
            except PurepyroError as error:
                if not isinstance(error, LookupError):
                    raise
                # Another structure, with other parameters: look again.
        if isinstance(guide, torch.nn.Module):
            guide(*args, **kwargs)  # Pyro's guides set themselves up in a first call, outside
        seen = _Params()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compute(_within(seen, model), _within(seen, guide), {}, key, *args, **kwargs)
        known = self._statements[model, guide] = list(seen.statements.values())
        return _at(known, compute, model, guide, key, args, kwargs)

    def compute_marginals(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``TraceEnum_ELBO`` of Pyro has it, if ours does too."""
        return self._method("compute_marginals", model, guide, args, kwargs)

    def sample_posterior(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The same; Pyro's then returns what the model does at the draws."""
        draws = self._method("sample_posterior", model, guide, args, kwargs)
        guided = poutine.trace(guide).get_trace(*args, **kwargs)
        return poutine.replay(poutine.condition(model, data=draws), guided)(*args, **kwargs)

    def _method(
        self, name: str, model: Any, guide: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        DRAWS.losses += 1
        if not hasattr(self.ours, name):
            raise NotOfferedError(f"{self.ours.__name__} has no {name}")
        return self._computed(name, model, guide, DRAWS.next(), args, kwargs)

    def _made(self) -> Any:
        known = {field.name for field in attrs.fields(self.ours)}
        options: dict[str, Any] = {"num_particles": self.num_particles}
        if "max_plate_nesting" in known and math.isfinite(self.max_plate_nesting):
            several = self.vectorize_particles and self.num_particles > 1
            options["max_plate_nesting"] = int(self.max_plate_nesting) - int(several)
        if "map" in known and not self.vectorize_particles:
            options["map"] = "loop"
        return self.ours(**options)

    def _get_trace(self, *args: object) -> Any:
        raise NotOfferedError(f"{self.ours.__name__} keeps no trace of Pyro's")


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*found no site to enumerate")
        yield


def _at(
    statements: list[_Statement],
    compute: Callable[..., object],
    model: Callable[..., object],
    guide: Callable[..., object],
    key: random.Key,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> object:
    # Made here, outside of our run, since Pyro's `SVI` looks for them.
    for each in statements:
        pyro.param(each.name, each.value, constraint=each.constraint, event_dim=each.event_dim)
    leaves = pyro.get_param_store()._params
    params = {each.name: leaves[each.name] for each in statements}
    store = _FromStore()
    return compute(_within(store, model), _within(store, guide), params, key, *args, **kwargs)


def behind_pyro() -> dict[str, type[Ours]]:
    """For each of our losses, by its name in Pyro, the class that takes its place there."""
    names = ("Trace_ELBO", "TraceEnum_ELBO", "TraceGraph_ELBO", "TraceMeanField_ELBO")
    return {name: type(name, (Ours,), {"ours": getattr(purepyro.infer, name)}) for name in names}
